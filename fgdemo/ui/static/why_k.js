// Runs once for each WhyK, with Gradio's element, props and watch in scope.
const card = element.querySelector('.why');
const plot = element.querySelector('.plot');
const label = element.querySelector('label');
const menu = element.querySelector('select');

let data = null;
let visible = false;
let drawing = Promise.resolve();
let drawn = false;
let Plotly = null;

function curve() {
  return data.curves[menu.selectedIndex] ?? data.curves[0];
}

// plotly reads a few tags in its texts.
function inert(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function traces({ ks, scores, chosen }) {
  const accent = variable('--color-accent');
  const quiet = variable('--body-text-color-subdued');
  const hovertemplate = 'K = %{x}<br>%{y:.4~g}<extra></extra>';
  const at = ks.indexOf(chosen);
  const mark = at < 0 ? [] : [at];
  return [
    {
      type: 'scatter', mode: 'lines+markers', x: ks, y: scores, hovertemplate,
      line: { color: quiet, width: 1.5 }, marker: { color: quiet, size: 7 },
    },
    {
      type: 'scatter', mode: 'markers', x: mark.map((i) => ks[i]), y: mark.map((i) => scores[i]), hovertemplate,
      cliponaxis: false,
      marker: { color: accent, size: 14, line: { color: variable('--block-background-fill'), width: 2 } },
    },
  ];
}

function layout({ ks, chosen, criterion, axis: title }) {
  const clear = 'rgba(0,0,0,0)';
  const quiet = variable('--body-text-color-subdued');
  const ink = variable('--body-text-color');
  const line = variable('--border-color-primary');
  const accent = variable('--color-accent');
  const axis = { gridcolor: line, zeroline: false, fixedrange: true, automargin: true };
  const marked = ks.includes(chosen);
  // at an end of the axis the text leans inwards
  const lean = { [ks[0]]: 'left', [ks[ks.length - 1]]: 'right' }[chosen] ?? 'center';
  return {
    paper_bgcolor: clear, plot_bgcolor: clear, showlegend: false, dragmode: false, hovermode: 'closest',
    margin: { l: 48, r: 16, t: 26, b: 40 },
    font: { family: getComputedStyle(element).fontFamily, size: 12, color: quiet },
    hoverlabel: {
      bgcolor: variable('--background-fill-primary'), bordercolor: line, font: { color: ink, size: 13 },
    },
    xaxis: {
      ...axis, showgrid: false, tickmode: 'array', tickvals: ks, title: { text: inert(title), standoff: 8 },
      range: [ks[0] - 0.4, ks[ks.length - 1] + 0.4],
    },
    yaxis: { ...axis, nticks: 5, tickformat: '~g', title: { text: inert(criterion), standoff: 8 } },
    shapes: marked ? [{
      type: 'line', x0: chosen, x1: chosen, y0: 0, y1: 1, yref: 'paper', layer: 'below',
      line: { color: accent, width: 1.5, dash: 'dot' },
    }] : [],
    annotations: marked ? [{
      x: chosen, y: 1, yref: 'paper', yanchor: 'bottom', xanchor: lean, showarrow: false, text: `K = ${chosen}, chosen`,
      font: { color: accent, size: 12 },
    }] : [],
  };
}

// One after the other: plotly must not be asked for a new picture while it makes one.
function draw() {
  drawing = drawing.then(paint);
}

async function paint() {
  if (!data || !visible) return;
  try {
    Plotly = await library();
  } catch (error) {
    plot.textContent = `The picture cannot be drawn: ${error.message}.`;
    return;
  }
  if (!data) return;
  const mine = curve();
  await Plotly.react(plot, traces(mine), layout(mine), { displayModeBar: false, responsive: false });
  drawn = true;
  card.dataset.drawn = mine.title;
}

function fill() {
  const mine = curve();
  element.querySelector('h3').textContent = mine.title;
  element.querySelector('.sentence').textContent = mine.sentence;
  element.querySelector('.rule').textContent = mine.rule;
  plot.setAttribute('aria-label', `${mine.criterion} over ${mine.axis}: ${mine.sentence}`);
  delete card.dataset.drawn;
  draw();
}

function update() {
  const before = data && menu.options.length ? curve().class : null;
  data = props.value?.curves ? props.value : null;
  card.hidden = data === null;
  if (!data) return;
  menu.replaceChildren(...data.curves.map((one) => node('option', one.class)));
  menu.selectedIndex = Math.max(0, data.curves.findIndex((one) => one.class === before));
  label.hidden = data.curves.length < 2;
  element.querySelector('.note').textContent = data.note;
  fill();
}

menu.addEventListener('change', fill);
watch('value', update);
new IntersectionObserver((entries) => {
  const was = visible;
  visible = entries[entries.length - 1].isIntersecting;
  if (visible && !was) draw();
}).observe(card);
new ResizeObserver(() => {
  if (visible && drawn && plot.offsetWidth) Plotly.Plots.resize(plot);
}).observe(card);
new MutationObserver(() => {
  if (visible && data) draw();
}).observe(document.body, { attributes: true, attributeFilter: ['class'] });
update();
