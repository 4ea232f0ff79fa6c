// Renew what changes on a page every few seconds, and offer keys. Every page works without this module.
// It fetches the same address again, and replaces each element with data-live by the new one, unless somebody uses it:
// it has the focus or a selection, a ticked box or an open <details>. It stops while nobody looks at the page.

const main = document.getElementById("main");
const status = document.getElementById("status");
const announcement = document.getElementById("announcement");
const keys = document.getElementById("keys");
const texts = announcement ? announcement.dataset : {};
const period = 1000 * (Number(main && main.dataset.every) || 0);
const longest = 60_000; // between two attempts, while the server does not answer
let wait = period;
let timer = 0;
let isStopped = false;
let isBusy = false;
let etag = ""; // of what this page shows

function isInUse(part) {
  const focused = document.activeElement;
  if (focused && focused !== document.body && part.contains(focused)) return true;
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && selection.containsNode(part, true)) return true;
  return part.querySelector("details[open], input:checked") !== null;
}

// Return whether the page shows all that is new: a part in use does not.
function replaceParts(fresh) {
  let isWhole = true;
  for (const part of fresh.querySelectorAll("[data-live][id]")) {
    const old = document.getElementById(part.id);
    if (!old || old.outerHTML === part.outerHTML) continue;
    if (isInUse(old)) isWhole = false;
    else old.replaceWith(document.adoptNode(part));
  }
  const updated = fresh.getElementById("updated");
  if (updated) document.getElementById("updated").replaceChildren(...updated.childNodes);
  tellOfAlerts(fresh);
  document.title = fresh.title;
  return isWhole;
}

// The server says that nothing has changed.
function keepParts(answer) {
  const time = document.querySelector("#updated time");
  if (time) time.textContent = new Date(answer.headers.get("Date") || Date.now()).toISOString().slice(11, 19);
}

function tellOfAlerts(fresh) {
  const then = Number(announcement.dataset.alerts);
  const now = Number(fresh.getElementById("announcement").dataset.alerts);
  announcement.dataset.alerts = now;
  if (now > then) announcement.textContent = texts.raised;
  if (now < then) announcement.textContent = texts.cleared;
}

async function renew() {
  if (isBusy || document.hidden) return;
  isBusy = true;
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await fetch(location.href, { redirect: "manual", cache: "no-store", headers });
    if (answer.type === "opaqueredirect" || answer.status === 403) return stop(texts.left);
    if (answer.status === 304) {
      keepParts(answer);
      wait = period;
    } else if (answer.ok || answer.status === 404) {
      const isWhole = replaceParts(new DOMParser().parseFromString(await answer.text(), "text/html"));
      etag = (isWhole && answer.headers.get("ETag")) || "";
      wait = period;
    } else {
      wait = Math.min(longest, 2 * (wait || period));
    }
  } catch {
    wait = Math.min(longest, 2 * (wait || period));
  } finally {
    isBusy = false;
    plan();
  }
}

function plan() {
  clearTimeout(timer);
  if (period && !isStopped && !document.hidden) timer = setTimeout(renew, wait);
}

function stop(text) {
  isStopped = true;
  clearTimeout(timer);
  if (text) announcement.textContent = text;
  if (text) announcement.classList.remove("unseen");
}

function addSwitch() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "small-btn";
  const label = () => {
    button.textContent = isStopped ? texts.start : `${texts.stop} (${period / 1000} s)`;
  };
  button.addEventListener("click", () => {
    isStopped = !isStopped;
    label();
    if (!isStopped) renew();
  });
  label();
  status.append(" ", button);
}

function addCopyButton(pre) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "small-btn";
  button.textContent = pre.dataset.copy;
  button.addEventListener("click", () => navigator.clipboard.writeText(pre.textContent));
  pre.before(button);
}

function onKey(event) {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("find").focus();
  } else if (event.key === "r") {
    renew();
  } else if (event.key === "?") {
    location.hash = "menu";
    keys.open = true;
    keys.querySelector("summary").focus();
  }
}

if (main && announcement) {
  keys.hidden = false;
  if (navigator.clipboard) document.querySelectorAll("pre[data-copy]").forEach(addCopyButton);
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : isStopped || renew()));
  if (period && status) {
    addSwitch();
    plan();
  }
}
