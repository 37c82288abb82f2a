// WebSocketBridge: JSON over a WebSocket that comes back, several streams over one socket. No dependencies.
//
//   <script src="{% static 'channels/js/websocketbridge.js' %}"></script>
//   const bridge = new channels.WebSocketBridge();
//   bridge.connect("/chat/");
//   bridge.listen((message) => show(message));
//   bridge.send({ text: "hello" });
//
// As a module: import { WebSocketBridge } from "./websocketbridge.mjs". Types are in websocketbridge.d.ts, which also
// says what each option means.
(() => {
  "use strict";

  const DEFAULTS = {
    minReconnectionDelay: 1000, // milliseconds, as all times here
    maxReconnectionDelay: 30_000,
    reconnectionDelayGrowFactor: 2,
    connectionTimeout: 10_000,
    maxRetries: Infinity,
    stableAfter: 5000,
    maxQueuedMessages: 100,
    shouldReconnect: ({ code }) => !(code === 1000 || code === 1008 || (code >= 4000 && code <= 4999)),
    WebSocket: undefined, // the browser's
  };

  /**
   * The longest wait before attempt number `failures + 1`. The wait itself is anything below it, so that the pages of a
   * server that was restarted do not all come back in one instant.
   */
  function longestDelay(options, failures) {
    const { minReconnectionDelay: first, maxReconnectionDelay: last, reconnectionDelayGrowFactor: factor } = options;
    return Math.min(last, first * factor ** failures);
  }

  /** A WebSocket that connects again on its own. Events: those of a WebSocket, and `reconnecting`. */
  class ReconnectingWebSocket extends EventTarget {
    #url;
    #protocols;
    #options;
    #socket = null;
    #queue = [];
    #failures = 0;
    #openedAt = 0;
    #timer = null;
    #isWanted = true;
    #binaryType = "blob";
    #page = new AbortController();

    constructor(url, protocols, options = {}) {
      super();
      this.#url = url;
      this.#protocols = protocols;
      const unknown = Object.keys(options).find((name) => !(name in DEFAULTS));
      if (unknown) throw new TypeError(`WebSocketBridge: there is no option ${unknown}`);
      this.#options = { ...DEFAULTS, ...options };
      this.#open();
      this.#watchPage();
    }

    get url() {
      return this.#socket?.url ?? String(this.#url);
    }

    get protocol() {
      return this.#socket?.protocol ?? "";
    }

    /** As of a WebSocket; CONNECTING also while it waits for the next attempt. */
    get readyState() {
      if (!this.#isWanted) return this.#socket?.readyState === WebSocket.CLOSING ? WebSocket.CLOSING : WebSocket.CLOSED;
      return this.#socket?.readyState === WebSocket.OPEN ? WebSocket.OPEN : WebSocket.CONNECTING;
    }

    get bufferedAmount() {
      return this.#socket?.bufferedAmount ?? 0;
    }

    get binaryType() {
      return this.#binaryType;
    }

    set binaryType(value) {
      this.#binaryType = value;
      if (this.#socket) this.#socket.binaryType = value;
    }

    /** How many messages wait for a connection. */
    get queuedCount() {
      return this.#queue.length;
    }

    /** Send `data`, or keep it until there is a connection. False: it was refused, and nothing was kept. */
    send(data) {
      if (this.#socket?.readyState === WebSocket.OPEN) {
        this.#socket.send(data);
        return true;
      }
      if (!this.#isWanted) {
        console.warn("WebSocketBridge: a message was not sent, the socket is closed for good");
        return false;
      }
      if (this.#queue.length >= this.#options.maxQueuedMessages) {
        console.warn(`WebSocketBridge: a message was not sent, ${this.#queue.length} wait for a connection already`);
        return false;
      }
      this.#queue.push(data);
      return true;
    }

    /** Close for good; what waits to be sent is dropped. */
    close(code, reason) {
      const wasWaiting = this.#isWanted && !this.#socket;
      this.#end();
      if (this.#socket) this.#socket.close(...(code === undefined ? [] : [code, reason]));
      else if (wasWaiting) this.#emit(new CloseEvent("close", { code: code ?? 1000, reason, wasClean: true }));
    }

    /** Connect at once, if it waits for the next attempt. */
    reconnect() {
      if (this.#isWanted && !this.#socket) this.#open();
    }

    #end() {
      this.#isWanted = false;
      clearTimeout(this.#timer);
      this.#queue = [];
      this.#page.abort();
    }

    #emit(event) {
      const handler = this[`on${event.type}`];
      if (typeof handler === "function") this.addEventListener(event.type, handler, { once: true });
      this.dispatchEvent(event);
    }

    #watchPage() {
      if (typeof document === "undefined") return;
      const { signal } = this.#page;
      globalThis.addEventListener("online", () => this.reconnect(), { signal });
      // A phone that wakes up need not wait for a timer that slept with it.
      document.addEventListener("visibilitychange", () => document.hidden || this.reconnect(), { signal });
      // An open socket keeps a page out of the back/forward cache, and would stay in its groups there.
      globalThis.addEventListener("pagehide", () => this.#socket?.close(), { signal });
      globalThis.addEventListener("pageshow", ({ persisted }) => persisted && this.reconnect(), { signal });
    }

    #open() {
      clearTimeout(this.#timer);
      this.#openedAt = 0;
      const Socket = this.#options.WebSocket ?? WebSocket;
      const socket = (this.#socket = new Socket(this.#url, this.#protocols ?? []));
      socket.binaryType = this.#binaryType;
      this.#timer = setTimeout(() => socket.close(), this.#options.connectionTimeout);
      socket.addEventListener("open", () => this.#opened(socket));
      socket.addEventListener("message", ({ data, origin }) => {
        this.#emit(new MessageEvent("message", { data, origin }));
      });
      socket.addEventListener("error", () => this.#emit(new Event("error")));
      socket.addEventListener("close", (event) => this.#closed(event));
    }

    #opened(socket) {
      clearTimeout(this.#timer);
      this.#openedAt = Date.now();
      // Listeners come first: what they send (who am I, what did I miss) is to arrive before what waited.
      this.#emit(new Event("open"));
      while (this.#queue.length && socket.readyState === WebSocket.OPEN) socket.send(this.#queue.shift());
    }

    #closed({ code, reason, wasClean }) {
      clearTimeout(this.#timer);
      this.#socket = null;
      if (this.#openedAt && Date.now() - this.#openedAt >= this.#options.stableAfter) this.#failures = 0;
      const event = new CloseEvent("close", { code, reason, wasClean });
      if (this.#isWanted && !this.#options.shouldReconnect(event)) this.#end();
      if (this.#isWanted && this.#failures >= this.#options.maxRetries) {
        console.warn(`WebSocketBridge: no connection to ${this.#url} in ${this.#failures + 1} attempts; giving up`);
        this.#end();
      }
      this.#emit(event);
      // A listener may have closed for good, or connected by itself.
      if (this.#isWanted && !this.#socket) this.#wait();
    }

    #wait() {
      const delay = Math.random() * longestDelay(this.#options, this.#failures++);
      this.#timer = setTimeout(() => this.#open(), delay);
      this.#emit(new CustomEvent("reconnecting", { detail: { attempt: this.#failures, delay } }));
    }
  }

  /** The full URL of `target`: nothing is this page's host, a path is below it, anything else stays. */
  function socketUrl(target) {
    if (target && !target.startsWith("/")) return target.replace(/^http/, "ws");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    return target?.startsWith("//") ? `${scheme}:${target}` : `${scheme}://${location.host}${target ?? ""}`;
  }

  /** Sends and receives JSON, for the page or for one stream of it. */
  class WebSocketBridge {
    #options;
    #listener = null;
    #streams = new Map();

    constructor(options = {}) {
      this.socket = null;
      this.#options = options;
    }

    /** Connect to `url`: a path, a URL, or by default this page's host. A connection from before is closed. */
    connect(url, protocols, options) {
      this.socket?.close();
      const socket = new ReconnectingWebSocket(socketUrl(url), protocols, { ...this.#options, ...options });
      socket.addEventListener("message", ({ data }) => this.socket === socket && this.#received(data));
      this.socket = socket;
    }

    /** Have `callback(message, null)` called for what comes outside of all streams. */
    listen(callback) {
      if (callback) this.#listener = callback;
    }

    /** Have `callback(payload, stream)` called for what comes on `stream`. */
    demultiplex(stream, callback) {
      this.#streams.set(stream, callback);
    }

    /** Send `message` as JSON, now or once there is a connection. False: it was refused. */
    send(message) {
      if (!this.socket) throw new Error("WebSocketBridge: call connect() before send()");
      const text = JSON.stringify(message);
      if (text === undefined) throw new TypeError("WebSocketBridge: JSON has nothing for what is to be sent");
      return this.socket.send(text);
    }

    /** What sends on `stream`. */
    stream(stream) {
      return { send: (action) => this.send({ stream, payload: action }) };
    }

    /** Close for good. */
    close(code, reason) {
      this.socket?.close(code, reason);
    }

    #received(data) {
      let message = data; // binary frames are passed on as they are
      if (typeof data === "string") {
        try {
          message = JSON.parse(data);
        } catch {
          console.error("WebSocketBridge: a frame is no JSON and is ignored:", data.slice(0, 200));
          return;
        }
        if (message?.stream !== undefined) {
          this.#streams.get(message.stream)?.(message.payload, message.stream);
          return;
        }
      }
      this.#listener?.(message, null);
    }
  }

  globalThis.channels = { ...globalThis.channels, ReconnectingWebSocket, WebSocketBridge };
})();
