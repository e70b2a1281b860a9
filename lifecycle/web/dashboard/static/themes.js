// The button that goes from the system's theme to the other one, and back.
export function prepareTheme() {
  const button = document.getElementById("theme");
  if (!button) return;
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const label = () => button.setAttribute("aria-label", current() === "dark" ? "Light theme" : "Dark theme");
  button.addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("lifecycle-theme", root.dataset.theme);
    } catch {
      // a browser that keeps nothing
    }
    label();
  });
  dark.addEventListener("change", label);
  label();
}
