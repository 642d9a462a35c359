// Draws the charts in place of their pictures. Without this file the pictures stay.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const look = () => {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim();
    const line = style.getPropertyValue("--line").trim();
    const words = { labelColor: ink, titleColor: ink };
    return {
      background: "transparent",
      axis: { ...words, gridColor: line, domainColor: line, tickColor: line },
      legend: words,
      title: { color: ink },
      view: { stroke: line },
    };
  };
  const draw = async (figure) => {
    const drawn = figure.querySelector(".drawn");
    const spec = JSON.parse(figure.querySelector("[data-chart]").textContent);
    const theme = dark.matches ? "dark" : undefined;
    spec.config = { ...spec.config, ...look() };
    // The interpreter, because the page's policy forbids code that is made of text.
    await vegaEmbed(drawn, spec, { ast: true, renderer: "svg", actions: false, tooltip: { theme } });
    drawn.hidden = false;
    figure.querySelector(".picture").hidden = true;
  };
  const drawAll = () => Promise.all(Array.from(document.querySelectorAll(".chart"), draw));
  drawAll().then(() => { document.body.dataset.charts = "drawn"; });
  dark.addEventListener("change", drawAll);
})();
