"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const png = (text) => "data:image/png;base64," + text;
  const slider = document.getElementById("step");

  // The step: everything that depends on it is moved at once.

  const frame = (run, kind, step) => {
    const of = run.of[kind];
    return of[Math.min(step, of.length - 1)];
  };
  const images = all("[data-image]"), photos = all("[data-photo]"), texts = all("[data-text]");
  const markers = all("[data-places]").map((mark) => [mark, mark.dataset.places.split(";")]);
  const lines = all("[data-rows]").map((line) => [line, line.dataset.rows.split(";")]);
  const film = all("[data-go]");

  function show(step) {
    const set = (element, name, store, put) => {
      const run = data[element.dataset.run], kind = run[store][element.dataset[name]];
      put(element, kind.all[frame(run, kind.by, step)]);
    };
    images.forEach((e) => set(e, "image", "images", (image, text) => { image.src = png(text); }));
    photos.forEach((e) => set(e, "photo", "photos", (image, text) => { image.src = "data:image/webp;base64," + text; }));
    texts.forEach((e) => set(e, "text", "texts", (place, text) => { place.textContent = text; }));
    for (const [mark, places] of markers) {
      mark.setAttribute("transform", `translate(${places[Math.min(step, places.length - 1)].replace(",", " ")})`);
    }
    for (const [line, rows] of lines) line.style.top = rows[Math.min(step, rows.length - 1)] + "%";
    film.forEach((e) => e.classList.toggle("now", Number(e.dataset.go) === step));
    attentions.forEach((each) => each.draw(step));
    if (slider) {
      slider.value = step + 1;
      slider.setAttribute("aria-valuetext", `step ${step + 1} of ${slider.max}`);
    }
  }
  const current = () => (slider ? Number(slider.value) - 1 : 0);
  const go = (step) => show(Math.max(0, Math.min(Number(slider.max) - 1, step)));

  // Where words look.

  const attentions = all("[data-attention]").map((figure) => {
    const run = data[figure.dataset.attention], told = run.attention;
    const state = { word: told.first, size: told.sizes[0], mode: "mean" };
    const large = figure.querySelector("[data-large]");
    const words = all("[data-word]", figure), sizes = all("[data-size]", figure), modes = all("[data-mode]", figure);
    const draw = (step) => {
      const maps = told.maps[state.size];
      const row = state.mode === "mean" ? maps.mean : maps.steps[frame(run, "attention", step)];
      large.src = png(row[state.word]);
      words.forEach((each, index) => {
        each.querySelector(".glow").src = png(row[index]);
        each.setAttribute("aria-pressed", String(index === state.word));
      });
      sizes.forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.size === state.size)));
      modes.forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.mode === state.mode)));
      figure.querySelector("[data-name]").textContent = told.words[state.word].key;
      figure.querySelector("[data-size-name]").textContent = state.size;
      figure.querySelector("[data-most]").textContent = told.most[state.size][state.word];
    };
    const choose = (key, value) => { state[key] = value; draw(current()); };
    words.forEach((each, index) => each.addEventListener("click", () => choose("word", index)));
    sizes.forEach((each) => each.addEventListener("click", () => choose("size", each.dataset.size)));
    modes.forEach((each) => each.addEventListener("click", () => choose("mode", each.dataset.mode)));
    return { draw };
  });

  // Layers and heads of the text encoder.

  all("[data-heads]").forEach((image) => {
    const index = image.dataset.heads, heads = data[index].heads;
    const layer = document.querySelector(`[data-layer="${index}"]`);
    const head = document.querySelector(`[data-head="${index}"]`);
    const draw = () => { image.src = png(heads[layer.value][head.value]); };
    layer.addEventListener("change", draw);
    head.addEventListener("change", draw);
  });

  // The slider, the arrow keys, the button that plays.

  if (slider) {
    slider.addEventListener("input", () => show(current()));
    document.addEventListener("keydown", (event) => {
      const taken = event.target.closest("input, select, textarea, .scroll, pre");
      if (taken || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { event.preventDefault(); go(current() + by); }
    });
    film.forEach((each) => each.addEventListener("click", () => go(Number(each.dataset.go))));
    const play = document.getElementById("play");
    let timer = 0;
    const stop = () => {
      clearInterval(timer); timer = 0;
      play.textContent = "▶"; play.setAttribute("aria-pressed", "false");
    };
    play.addEventListener("click", () => {
      if (timer) { stop(); return; }
      if (current() + 1 >= Number(slider.max)) go(0);
      play.textContent = "❚❚"; play.setAttribute("aria-pressed", "true");
      timer = setInterval(() => {
        go(current() + 1);
        if (current() + 1 >= Number(slider.max)) stop();
      }, Math.max(80, Math.min(400, 8000 / Number(slider.max))));
    });
    show(current());
  }

  // The glossary, a hover away.

  const tip = document.getElementById("tip");
  const tell = (term) => {
    tip.textContent = term.dataset.meaning;
    tip.hidden = false;
    const box = term.getBoundingClientRect(), width = tip.offsetWidth;
    tip.style.left = `${Math.max(8, Math.min(document.documentElement.clientWidth - width - 8, box.left))}px`;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  };
  const hush = () => { tip.hidden = true; };
  all(".term").forEach((term) => {
    term.setAttribute("aria-describedby", "tip");
    term.addEventListener("mouseenter", () => tell(term));
    term.addEventListener("focus", () => tell(term));
    term.addEventListener("mouseleave", hush);
    term.addEventListener("blur", hush);
  });
  addEventListener("scroll", hush, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });

  // The command, to be pasted.

  all("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    try { await navigator.clipboard.writeText(text); button.textContent = "copied"; }
    catch { getSelection().selectAllChildren(document.getElementById(button.dataset.copy)); }
  }));
})();
