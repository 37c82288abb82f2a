// The liveblog's page: puts in, changes and takes out posts as they are saved. consumers.py is the other end.

import { LiveSocket, localTimes } from "../js/live-socket.js";

const POSTS_COUNT = 100; // kept on the page; the oldest go

const find = (id) => document.getElementById(id);
const list = find("posts");
const socket = new LiveSocket("/liveblog/");
let unread = 0;

/** Do `change`, which alters posts above the reader, without moving what is being read. */
function keepingPlace(change) {
  const below = [...list.children].map((post) => [post, post.getBoundingClientRect().top]).filter(([, top]) => top >= 0);
  change();
  const stayed = below.find(([post]) => post.isConnected);
  if (!stayed || scrollY === 0) return;
  const [post, before] = stayed;
  scrollBy({ top: post.getBoundingClientRect().top - before, behavior: "instant" });
}

function showPost({ id, title, body, created, updated }) {
  const known = find(`post-${id}`);
  // Messages of two processes may overtake each other: the later version stays.
  if (known && new Date(known.dataset.updated) > new Date(updated)) return;
  const post = known ?? find("post").content.firstElementChild.cloneNode(true);
  post.id = `post-${id}`;
  post.dataset.id = id;
  post.dataset.updated = updated;
  post.querySelector(".name").textContent = title;
  post.querySelector(".body").textContent = body;
  post.querySelector("time").dateTime = created;
  localTimes(post);
  const edit = post.querySelector("a.edit");
  if (edit) edit.href = find("post").dataset.edit.replace("/0/", `/${id}/`);
  if (known) return;
  const next = [...list.children].find((other) => Number(other.dataset.id) < id);
  if (!next && list.children.length >= POSTS_COUNT) return; // older than everything on the page
  list.insertBefore(post, next ?? null);
  post.classList.add("fresh");
  if (scrollY > 0) showUnread(unread + 1);
  find("news").textContent = `Posted: ${title}`;
  if (list.children.length > POSTS_COUNT) list.lastElementChild.remove();
}

function showUnread(count) {
  unread = count;
  find("newer").hidden = count === 0;
  find("newer").textContent = `${count} new post${count === 1 ? "" : "s"}`;
}

const on = {
  post: showPost,
  gone: ({ id }) => find(`post-${id}`)?.remove(),
  missed: ({ changes }) => changes.forEach((change) => on[change.type]?.(change)),
};

socket.addEventListener("open", () => {
  const shown = [...list.children];
  const since = shown.map((post) => post.dataset.updated).reduce((a, b) => (new Date(a) > new Date(b) ? a : b), "");
  socket.send({ since, shown: shown.map((post) => Number(post.dataset.id)) });
});
socket.addEventListener("message", ({ detail }) => keepingPlace(() => on[detail.type]?.(detail)));

find("newer").addEventListener("click", () => scrollTo({ top: 0, behavior: "smooth" }));
addEventListener("scroll", () => scrollY === 0 && showUnread(0), { passive: true });

localTimes(list);
socket.showStateIn(find("connection"));
socket.open();
