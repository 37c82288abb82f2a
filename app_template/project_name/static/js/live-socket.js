// JSON over a WebSocket that comes back (channels/js/websocketbridge.js), and says on the page what state it is in.
//
//   const socket = new LiveSocket("/chat/lobby/");
//   socket.showStateIn(document.querySelector("#connection"));
//   socket.addEventListener("open", () => socket.send({ since: 17 }));     // each time: ask for what was missed
//   socket.addEventListener("message", (event) => show(event.detail));     // the parsed JSON
//   socket.open();

import { WebSocketBridge } from "../channels/js/websocketbridge.mjs";

export class LiveSocket extends EventTarget {
  #path;
  #bridge = new WebSocketBridge({ minReconnectionDelay: 500, maxQueuedMessages: 0, shouldReconnect: () => true });
  #retryAt = 0;
  #ticker = null;
  #elements = [];

  /** @param {string} path  of the socket on this page's own host, such as "/liveblog/" */
  constructor(path) {
    super();
    this.#path = path;
  }

  get isOpen() {
    return this.#bridge.socket?.readyState === WebSocket.OPEN;
  }

  /** Connect, and stay connected from now on. */
  open() {
    this.#show("connecting", "connecting");
    this.#bridge.connect(this.#path);
    this.#bridge.listen((content) => this.dispatchEvent(new CustomEvent("message", { detail: content })));
    this.#bridge.socket.addEventListener("open", () => {
      this.#show("open", "connected");
      this.dispatchEvent(new Event("open"));
    });
    this.#bridge.socket.addEventListener("reconnecting", ({ detail }) => this.#wait(detail.delay));
  }

  /** Send `content` as JSON. Returns false, and sends nothing, while there is no connection. */
  send(content) {
    return this.isOpen && this.#bridge.send(content);
  }

  /** Keep an element (see _connection.html) up to date with the state, in a color and in words. */
  showStateIn(element) {
    this.#elements.push(element);
  }

  #wait(delay) {
    this.#retryAt = Date.now() + delay;
    if (navigator.onLine) this.#show("reconnecting", "reconnecting");
    else this.#show("offline", "offline, trying again"); // a server on this very machine may still be reached
    this.#tick();
    this.#ticker = setInterval(() => this.#tick(), 250);
  }

  #tick() {
    const seconds = Math.max(1, Math.ceil((this.#retryAt - Date.now()) / 1000));
    for (const element of this.#elements) element.querySelector("[data-countdown]").textContent = `in ${seconds} s`;
  }

  #show(state, words) {
    clearInterval(this.#ticker);
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
