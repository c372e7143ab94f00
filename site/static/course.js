// What the pages do in the browser: names that the theme leaves out, and the quiz of chapter 1.

document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-sidebar-primary summary")) {
    summary.setAttribute("aria-label", `Below ${summary.closest("li").querySelector("a").textContent.trim()}`);
  }
  document.querySelector(".bd-sidebar-primary .sidebar-primary-item")?.setAttribute("role", "banner");
  const reachable = () => {
    // What scrolls sideways must be reachable with the keyboard. The theme sees to blocks of code, 0.3 s later.
    for (const block of document.querySelectorAll("mjx-container[display], pre")) {
      if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
    }
  };
  window.MathJax?.startup?.promise?.then(reachable);
  window.addEventListener("resize", reachable);
});

function same(written, right) {
  const text = written.trim().toLowerCase().replace(/^["']|["']$/g, "");
  if (typeof right === "number") {
    const number = Number(text.replace(/[, _]/g, ""));
    return text !== "" && Math.abs(number - right) <= 1e-3 * Math.abs(right);
  }
  const letters = (each) => each.replace(/\band\b/g, " ").replace(/[^a-z]/g, "");
  const sorted = (each) => [...new Set(letters(each))].sort().join("");
  // Letters that apply may come in any order; a right answer out of the alphabet's order asks for that order.
  return sorted(right) === right ? sorted(text) === right : letters(text) === letters(right);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form.quiz")) return;
  event.preventDefault();
  const boxes = [...form.querySelectorAll("input")];
  const right = boxes.every((box) => same(box.value, JSON.parse(box.dataset.answer)));
  const written = boxes.some((box) => box.value.trim() !== "");
  const verdict = right ? `Right: ${form.dataset.why}.` : `Not yet. Hint: ${form.dataset.hint}.`;
  form.querySelector("output").textContent = written ? verdict : "Write an answer first.";
  form.classList.toggle("right", right);
});
