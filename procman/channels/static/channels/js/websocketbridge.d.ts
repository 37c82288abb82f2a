/** Options of a connection; times are in milliseconds. */
export interface Options {
  /** The wait before the first new attempt is a random time below this. Default 1000. */
  minReconnectionDelay?: number;
  /** The bound of the wait grows up to this. Default 30000. */
  maxReconnectionDelay?: number;
  /** What the bound is multiplied with after each attempt. Default 2. */
  reconnectionDelayGrowFactor?: number;
  /** An attempt that has not succeeded after this is given up. Default 10000. */
  connectionTimeout?: number;
  /** New attempts in a row before it closes for good. Default Infinity. */
  maxRetries?: number;
  /** A connection that lasted this long makes the next loss begin with the first wait again. Default 5000. */
  stableAfter?: number;
  /** Messages that may wait for a connection; more are refused. Default 100. */
  maxQueuedMessages?: number;
  /**
   * Whether a connection that was closed is opened again. By default not after 1000 (the server has ended the
   * conversation), 1008 (refused) and 4000-4999 (the application's own).
   */
  shouldReconnect?: (event: CloseEvent) => boolean;
  /** A class to use in the place of WebSocket. */
  WebSocket?: new (url: string, protocols?: string | string[]) => WebSocket;
}

/** What a `reconnecting` event has as `detail`. */
export interface Reconnecting {
  attempt: number;
  delay: number;
}

export interface ReconnectingWebSocketEventMap {
  open: Event;
  message: MessageEvent;
  error: Event;
  close: CloseEvent;
  reconnecting: CustomEvent<Reconnecting>;
}

/** A WebSocket that connects again on its own. */
export class ReconnectingWebSocket extends EventTarget {
  constructor(url: string, protocols?: string | string[], options?: Options);
  readonly url: string;
  readonly protocol: string;
  /** As of a WebSocket; CONNECTING also while it waits for the next attempt. */
  readonly readyState: number;
  readonly bufferedAmount: number;
  /** How many messages wait for a connection. */
  readonly queuedCount: number;
  binaryType: BinaryType;
  onopen?: ((event: Event) => void) | null;
  onmessage?: ((event: MessageEvent) => void) | null;
  onerror?: ((event: Event) => void) | null;
  onclose?: ((event: CloseEvent) => void) | null;
  onreconnecting?: ((event: CustomEvent<Reconnecting>) => void) | null;
  /** Send, or keep until there is a connection. False: it was refused. */
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): boolean;
  /** Close for good; what waits to be sent is dropped. */
  close(code?: number, reason?: string): void;
  /** Connect at once, if it waits for the next attempt. */
  reconnect(): void;
  addEventListener<K extends keyof ReconnectingWebSocketEventMap>(
    type: K,
    listener: (event: ReconnectingWebSocketEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/** Sends and receives JSON over a WebSocket that comes back; several streams over one socket. */
export class WebSocketBridge {
  constructor(options?: Options);
  /** Null before `connect`. */
  socket: ReconnectingWebSocket | null;
  /** Connect to a path, a URL, or by default the page's host. A connection from before is closed. */
  connect(url?: string | null, protocols?: string | string[], options?: Options): void;
  /** Have the callback called for what comes outside of all streams; binary frames as they are. */
  listen(callback?: (message: any, stream: null) => void): void;
  /** Have the callback called for what comes on the stream. */
  demultiplex(stream: string, callback: (payload: any, stream: string) => void): void;
  /** Send as JSON, now or once there is a connection. False: it was refused. Throws before `connect`. */
  send(message: unknown): boolean;
  /** What sends on the stream. */
  stream(stream: string): { send(action: unknown): boolean };
  /** Close for good. */
  close(code?: number, reason?: string): void;
}

declare global {
  /** Where the plain script puts the classes. */
  var channels: {
    ReconnectingWebSocket: typeof ReconnectingWebSocket;
    WebSocketBridge: typeof WebSocketBridge;
  };
}
