// Before the page is painted: the theme that was chosen here, if any. Without one, the system's holds.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("lifecycle-theme");
  } catch {
    // a browser that keeps nothing
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  document.documentElement.classList.add("scripted");
})();
