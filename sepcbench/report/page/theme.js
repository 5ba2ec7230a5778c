// The theme: the system's, or light or dark as chosen; kept where the browser keeps such things.

const THEMES = ["system", "light", "dark"];
const themeButton = document.getElementById("theme");

function stored() {
  try {
    return localStorage.getItem("sepcbench-theme");
  } catch {
    return null; // no storage for pages opened from a file, in some browsers
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  themeButton.textContent = `Theme: ${theme}`;
}

themeButton.addEventListener("click", () => {
  const now = THEMES.indexOf(document.documentElement.dataset.theme);
  const theme = THEMES[(now + 1) % THEMES.length];
  setTheme(theme);
  try {
    localStorage.setItem("sepcbench-theme", theme);
  } catch {
    // the choice then holds for this visit
  }
});
setTheme(THEMES.includes(stored()) ? stored() : "system");
