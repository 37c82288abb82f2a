// A WebSocket that comes back: it connects again on its own and says what state it is in.
//
//   const socket = new LiveSocket("/chat/lobby/");
//   socket.showStateIn(document.querySelector("#connection"));
//   socket.addEventListener("open", () => socket.send({ since: 17 }));     // each time: ask for what was missed
//   socket.addEventListener("message", (event) => show(event.detail));     // the parsed JSON
//   socket.open();

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
// A connection that lasted this long was a good one: the next loss starts from the first delay again.
const STEADY_MS = 5_000;

/**
 * How long to wait before attempt number `failures + 1`, in milliseconds.
 *
 * It doubles up to half a minute. The random half spreads the pages of a restarted server over time, which would
 * otherwise all come back in the same instant.
 */
export function delayAfter(failures, random = Math.random()) {
  const full = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** failures);
  return full / 2 + (full / 2) * random;
}

export class LiveSocket extends EventTarget {
  #address;
  #socket = null;
  #failures = 0;
  #openedAt = 0;
  #timer = null;
  #retryAt = 0;
  #ticker = null;
  #elements = [];

  /** @param {string} path  of the socket on this page's own host, such as "/liveblog/" */
  constructor(path) {
    super();
    this.#address = new URL(path, location.href);
    this.#address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    addEventListener("online", () => this.#retryNow());
    addEventListener("offline", () => this.#lost());
    // A phone that wakes up should not have to wait for a timer that slept with it.
    document.addEventListener("visibilitychange", () => document.hidden || this.#retryNow());
    // A page that goes into the back/forward cache would keep its place in the group; it connects when it is shown again.
    addEventListener("pagehide", () => this.#drop());
    addEventListener("pageshow", (event) => event.persisted && this.open());
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Connect, and stay connected from now on. */
  open() {
    this.#drop();
    this.#show("connecting", "connecting");
    const socket = new WebSocket(this.#address);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      this.#openedAt = Date.now();
      this.#show("open", "connected");
      this.dispatchEvent(new Event("open"));
    });
    socket.addEventListener("message", (event) => {
      this.dispatchEvent(new CustomEvent("message", { detail: JSON.parse(event.data) }));
    });
    socket.addEventListener("close", () => this.#socket === socket && this.#lost());
  }

  /** Send `content` as JSON. Returns false, and sends nothing, while there is no connection. */
  send(content) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(content));
    return true;
  }

  /** Keep an element (see _connection.html) up to date with the state, in a color and in words. */
  showStateIn(element) {
    this.#elements.push(element);
  }

  #lost() {
    this.#drop();
    if (this.#openedAt && Date.now() - this.#openedAt > STEADY_MS) this.#failures = 0;
    this.#openedAt = 0;
    const delay = delayAfter(this.#failures++);
    this.#retryAt = Date.now() + delay;
    this.#timer = setTimeout(() => this.open(), delay);
    if (navigator.onLine) this.#show("reconnecting", "reconnecting");
    else this.#show("offline", "offline, trying again"); // a server on this very machine may still be reached
    this.#tick();
    this.#ticker = setInterval(() => this.#tick(), 250);
  }

  #retryNow() {
    if (this.#timer !== null || !this.#socket) this.open();
  }

  #drop() {
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    this.#timer = this.#ticker = null;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #tick() {
    const seconds = Math.max(1, Math.ceil((this.#retryAt - Date.now()) / 1000));
    for (const element of this.#elements) element.querySelector("[data-countdown]").textContent = `in ${seconds} s`;
  }

  #show(state, words) {
    for (const element of this.#elements) {
      element.dataset.state = state;
      element.querySelector("[data-words]").textContent = words;
      element.querySelector("[data-countdown]").textContent = "";
    }
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}

/** Write the times below `root` in the reader's own time zone and manner; today's without the date. */
export function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const when = new Date(element.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    const today = when.toDateString() === new Date().toDateString();
    const style = today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
    element.textContent = when.toLocaleString([], style);
    element.title = when.toLocaleString();
  }
}
