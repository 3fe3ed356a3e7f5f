"use strict";
// Asks for the page again every few seconds, and puts what is marked as live in the place of what is there. Without
// this script a page is a page: reload it.
(() => {
  const everyMs = 1000 * Number(document.body.dataset.refreshS || 0);
  if (!everyMs) return;
  const late = document.getElementById("late");
  const words = document.getElementById("refreshed").dataset.late;
  const ids = [...document.querySelectorAll("[data-live]")].map((part) => part.id);

  function replace(old, fresh) {
    if (old.innerHTML === fresh.innerHTML) return;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    const scrolled = [...old.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    old.replaceChildren(...fresh.childNodes);
    old.querySelectorAll("details").forEach((each, at) => (each.open = open[at] ?? false));
    old.querySelectorAll(".scroll").forEach((each, at) => (each.scrollLeft = scrolled[at] ?? 0));
    if (!focused) return;
    const href = focused.getAttribute("href");
    const again = (focused.id && document.getElementById(focused.id)) ||
      (href && old.querySelector(`[href="${CSS.escape(href)}"]`));
    if (again) again.focus({ preventScroll: true });
  }

  async function refresh() {
    try {
      if (document.hidden) return;
      const answer = await fetch(location.href, { redirect: "manual", signal: AbortSignal.timeout(10000) });
      if (answer.type === "opaqueredirect") return location.reload(); // not signed in any more
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ids) {
        const old = document.getElementById(id);
        const part = fresh.getElementById(id);
        if (old && part) replace(old, part);
      }
      late.textContent = "";
    } catch {
      late.textContent = words;
    } finally {
      setTimeout(refresh, everyMs);
    }
  }
  setTimeout(refresh, everyMs);
})();
