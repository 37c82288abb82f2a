// The page of a room: says what is typed, shows what is said and who is here. consumers.py is the other end.
//
// Everything that came from somebody else is put in with textContent, so it can never become markup.

import { LiveSocket, localTimes } from "../js/live-socket.js";

const UNSENT_COUNT = 20; // messages that may wait for a connection

const SHOWN_COUNT = 500; // lines kept on the page; the oldest go

const find = (id) => document.getElementById(id);
const list = find("messages");
const socket = new LiveSocket(location.pathname);
const unsent = new Map(); // key -> text: said here, not yet heard back
let you = "";
let lastId = 0;
let people = new Map(); // id of the socket -> name
let gone = null; // ids of those who left before the welcome came

function show(element) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(element);
  if (list.children.length > SHOWN_COUNT) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
  else if (element.classList.contains("message")) find("newer").hidden = false;
}

function showMessage({ id = null, key, name, text, created }) {
  if (id !== null) lastId = Math.max(lastId, id);
  const known = list.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (known && (known.dataset.id || id === null)) return;
  const element = known ?? find("message").content.firstElementChild.cloneNode(true);
  element.dataset.key = key;
  element.dataset.id = id ?? "";
  element.classList.toggle("unsent", id === null);
  element.classList.toggle("mine", id === null || unsent.delete(key) || name === you);
  element.querySelector(".name").textContent = name;
  element.querySelector(".text").textContent = text;
  element.querySelector("time").dateTime = created ?? "";
  localTimes(element);
  // What was waiting to be sent goes behind what others said meanwhile: the order that everybody else sees.
  if (!known || element !== list.lastElementChild) show(element);
}

function showEvent(text) {
  const element = document.createElement("p");
  element.className = "event";
  element.textContent = text;
  show(element);
}

function showPeople() {
  const names = [...new Set(people.values())].sort((a, b) => a.localeCompare(b));
  find("count").textContent = `(${names.length})`;
  find("people").replaceChildren(
    ...names.map((name) => {
      const element = document.createElement("li");
      element.textContent = name === you ? `${name}, you` : name;
      element.classList.toggle("me", name === you);
      return element;
    }),
  );
}

function showProblem(text) {
  find("problem").textContent = text;
  find("problem").hidden = !text;
}

const on = {
  welcome(content) {
    you = content.you;
    // Who came or went between the server's look and this message was told on its own: that is later and wins.
    for (const { id, name } of content.people) if (!gone?.has(id)) people.set(id, name);
    gone = null;
    showPeople();
  },
  joined({ id, name }) {
    people.set(id, name);
    showPeople();
    if (name !== you) showEvent(`${name} came in`);
  },
  left({ id, name }) {
    people.delete(id);
    gone?.add(id);
    showPeople();
    if (name !== you) showEvent(`${name} left`);
  },
  history({ messages }) {
    messages.forEach(showMessage);
  },
  message: showMessage,
  error({ text }) {
    showProblem(text);
  },
};

socket.addEventListener("open", () => {
  people = new Map();
  gone = new Set();
  socket.send({ since: lastId });
  // The server keeps one message per key, so sending again what may have arrived does no harm.
  for (const [key, text] of unsent) socket.send({ key, text });
});
socket.addEventListener("message", ({ detail }) => on[detail.type]?.(detail));

find("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text").value.trim();
  if (!text) return;
  if (unsent.size >= UNSENT_COUNT) {
    showProblem("Too many messages are waiting for the connection. This one stays in the box.");
    return;
  }
  showProblem("");
  const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  unsent.set(key, text);
  showMessage({ key, text, name: you });
  socket.send({ key, text });
  find("text").value = "";
  list.scrollTop = list.scrollHeight;
});

find("newer").addEventListener("click", () => (list.scrollTop = list.scrollHeight));
list.addEventListener("scroll", () => {
  if (list.scrollHeight - list.scrollTop - list.clientHeight < 40) find("newer").hidden = true;
});

for (const element of list.children) lastId = Math.max(lastId, Number(element.dataset.id));
localTimes(list);
list.scrollTop = list.scrollHeight;
socket.showStateIn(find("connection"));
socket.open();
