// WebSocketBridge as a module: import { WebSocketBridge } from "./websocketbridge.mjs"
import "./websocketbridge.js";

export const { ReconnectingWebSocket, WebSocketBridge } = globalThis.channels;
