// How a weight looks: hue by sign, width by size, and what is near zero fades until zero is invisible.

// Orange and blue, as in the diverging scale of workbench/figures/theme.py: told apart by any eye.
const INKS = {
  light: { negative: "#b35806", positive: "#2166ac" },
  dark: { negative: "#fdb863", positive: "#86c1e6" },
};
const FULL_INK = 0.15; // as in payload.py
const WIDEST = 5;

/**
 * The look of lines of a part t of the limit. Where many are drawn, all are thinner, and the weaker they are the
 * fainter: a few strong ones would drown among them.
 */
function lookOf(density) {
  const crowd = Math.max(1, density / 150);
  const widest = Math.max(1, WIDEST / crowd ** 0.33);
  const darkest = Math.max(0.35, 0.95 / crowd ** 0.18);
  const steep = Math.min(2.5, 0.37 * Math.log2(crowd));
  return {
    width: (t) => Math.max(0.35, widest * t),
    alpha: (t) => darkest * Math.min(1, t / FULL_INK) * t ** steep,
  };
}

/** What a bin stands for: the middle of the parts that fall in it. */
function middle(size) {
  return ((size + 0.5) / BINS) ** 2;
}

function colours(element, theme) {
  const style = getComputedStyle(element);
  const of = (name) => style.getPropertyValue(`--wbw-${name}`).trim();
  return {
    ...INKS[theme],
    paper: of("paper"), ink: of("ink"), muted: of("muted"), line: of("line"), panel: of("panel"), accent: of("accent"),
    font: of("font"),
  };
}
