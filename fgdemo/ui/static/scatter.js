// Runs once for each Scatter, with Gradio's element, trigger, props, server and watch in scope.
const frame = element.querySelector('.frame');
const plot = element.querySelector('.plot');
const card = element.querySelector('.card');
const legend = element.querySelector('.legend');
const touch = window.matchMedia('(pointer: coarse)').matches;

const MANY = 20000;
const CARD_DELAY_MS = 60;
const CARDS_KEPT = 500;
const CONFIG = {
  displaylogo: false, displayModeBar: touch ? false : 'hover', showSendToCloud: false, plotlyServerURL: '',
  responsive: false, doubleClick: 'reset', scrollZoom: false,
  modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'],
};

let Plotly = null;
let data = null;
let picked = new Set();
let marked = null;
let cards = new Map();
let hovered = null;
let timer = 0;
let visible = false;
let drawing = Promise.resolve();
let listening = false;
let expected = null;
let asked = null;

function decode(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Kind(bytes.buffer);
}

function markerSize(count) {
  const room = Math.max(0.7, Math.min(1, frame.offsetWidth / 560));
  return Math.max(3, Math.min(10, 22 - 4.2 * Math.log10(count + 1)) * room);
}

const webgl = (() => {
  try {
    return Boolean(document.createElement('canvas').getContext('webgl'));
  } catch {
    return false;
  }
})();

// One trace for each style; a style that several groups share has an opacity for each point.
function traces() {
  const size = markerSize(data.x.length);
  const outline = variable('--background-fill-primary') || '#fff';
  const made = data.styles.map(({ groups, points, x, y }) => {
    const first = data.groups[groups[0]];
    return {
      type: webgl ? 'scattergl' : 'scatter', mode: 'markers', x, y, customdata: points, hoverinfo: 'none',
      marker: {
        color: first.colour, symbol: first.symbol, size, opacity: opacity(groups, points),
        line: { width: data.x.length > 5000 ? 0 : 0.6, color: outline },
      },
    };
  });
  made.push({
    type: webgl ? 'scattergl' : 'scatter', mode: 'markers', hoverinfo: 'skip', ...ring(),
    marker: { symbol: 'circle-open', size: size + 9, color: variable('--body-text-color'), line: { width: 2 } },
  });
  return made;
}

// Where the ring around the chosen point goes; out of sight it lies on the first point.
function ring() {
  return { x: [data.x[marked ?? 0]], y: [data.y[marked ?? 0]], visible: marked !== null };
}

function opacity(groups, points) {
  const [full, faded] = data.x.length > MANY ? [0.7, 0.012] : [0.9, 0.07];
  const of = (group) => (picked.size === 0 || picked.has(data.groups[group].id) ? full : faded);
  if (groups.every((group) => of(group) === of(groups[0]))) return of(groups[0]);
  return Float32Array.from(points, (point) => of(data.code[point]));
}

function layout() {
  const axis = { visible: false, zeroline: false };
  return {
    uirevision: data.frame, showlegend: false, hovermode: 'closest', hoverdistance: touch ? 24 : 12,
    dragmode: touch ? false : 'zoom', margin: { l: 14, r: 14, t: 14, b: 14 },
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    modebar: {
      bgcolor: 'rgba(0,0,0,0)', color: variable('--body-text-color-subdued'),
      activecolor: variable('--body-text-color'),
    },
    xaxis: { ...axis }, yaxis: { ...axis, scaleanchor: 'x' },
  };
}

function read(value) {
  const x = decode(value.x, Float32Array);
  const y = decode(value.y, Float32Array);
  const code = decode(value.code, Uint32Array);
  const styles = new Map();
  value.groups.forEach((group, i) => {
    const style = styles.get(group.mark) ?? { groups: [], points: [] };
    style.groups.push(i);
    styles.set(group.mark, style);
  });
  const owner = value.groups.map((group) => styles.get(group.mark));
  code.forEach((group, point) => owner[group].points.push(point));
  const used = [...styles.values()].filter((style) => style.points.length);
  for (const style of used) {
    style.x = Float32Array.from(style.points, (point) => x[point]);
    style.y = Float32Array.from(style.points, (point) => y[point]);
  }
  return { result: value.result, frame: value.frame, groups: value.groups, x, y, code, styles: used };
}

// One after the other: plotly must not be asked for a new picture while it makes one.
function draw() {
  drawing = drawing.then(paint);
}

async function paint() {
  try {
    Plotly = await library();
  } catch (error) {
    element.querySelector('.empty').textContent = `The picture cannot be drawn: ${error.message}.`;
    return;
  }
  if (!data || !visible) return;
  const mine = data;
  await Plotly.react(plot, traces(), layout(), CONFIG);
  if (!listening) {
    plot.on('plotly_click', choose);
    plot.on('plotly_hover', hover);
    plot.on('plotly_unhover', leave);
    listening = true;
  }
  if (data !== mine) return;
  frame.classList.add('drawn');
  frame.dataset.result = data.result;
  frame.dataset.points = data.x.length;
}

function choose({ points, event }) {
  const point = points[0]?.customdata;
  if (!data || !Number.isInteger(point)) return;
  if (touch) show(point, event);
  marked = point;
  const { x, y } = ring();
  Plotly.restyle(plot, { x: [x], y: [y], visible: true }, [data.styles.length]);
  trigger('point_click', { result: data.result, point });
}

function hover({ points, event }) {
  const point = points[0]?.customdata;
  if (touch || !data || !Number.isInteger(point)) return;
  frame.classList.add('over');
  show(point, event);
}

function show(point, event) {
  hovered = point;
  fill(point, cards.get(point));
  place(event);
  clearTimeout(timer);
  if (!cards.has(point)) timer = setTimeout(() => ask(point), CARD_DELAY_MS);
}

function leave() {
  if (touch && data) return;
  hovered = null;
  clearTimeout(timer);
  frame.classList.remove('over');
  card.classList.remove('on');
}

async function ask(point) {
  const result = data.result;
  const about = await server.describe({ result, point }).catch(() => null);
  if (!about || !data || data.result !== result) return;
  if (cards.size >= CARDS_KEPT) cards.delete(cards.keys().next().value);
  cards.set(point, about);
  if (hovered === point) fill(point, about);
}

function mark(group) {
  const made = node('i', undefined, 'mark');
  made.style.cssText = group.mark;
  return made;
}

// Groups without a class are clusters.
function heading(group) {
  const noun = group.class ? 'Subclass' : 'Cluster';
  return group.id < 0 ? `No ${noun.toLowerCase()}` : `${noun} ${group.name}`;
}

function fill(point, about) {
  const group = data.groups[data.code[point]];
  const text = node('div');
  const title = node('b');
  title.append(mark(group), heading(group));
  text.append(title);
  if (group.class) text.append(node('span', `Class ${group.class}`));
  if (about) text.append(node('span', about.key));
  card.replaceChildren(text);
  if (about?.picture) {
    const picture = node('img');
    picture.src = about.picture;
    picture.alt = '';
    card.prepend(picture);
  }
  card.classList.add('on');
}

function place(event) {
  const box = frame.getBoundingClientRect();
  const at = event.changedTouches?.[0] ?? event;
  const x = at.clientX - box.left;
  const y = at.clientY - box.top;
  const width = 280;
  card.style.left = `${x + 18 + width > box.width ? Math.max(4, x - 18 - card.offsetWidth) : x + 18}px`;
  card.style.top = `${Math.max(4, Math.min(y - 20, box.height - 96))}px`;
}

function drawLegend() {
  const classes = new Map();
  for (const group of data?.groups ?? []) {
    classes.set(group.class, [...(classes.get(group.class) ?? []), group]);
  }
  const rows = [...classes].map(([name, groups]) => {
    const row = node('div', undefined, 'class');
    if (name) {
      const whole = node('button', name, 'whole');
      whole.type = 'button';
      row.append(whole);
    }
    for (const group of groups) {
      const button = node('button');
      button.type = 'button';
      button.dataset.id = group.id;
      button.append(mark(group), group.class ? group.name : heading(group));
      button.append(node('small', group.size.toLocaleString('en')));
      row.append(button);
    }
    return row;
  });
  if (picked.size) {
    const all = node('button', 'Show all', 'all');
    all.type = 'button';
    rows.unshift(all);
  }
  legend.replaceChildren(...rows);
  legend.classList.toggle('picking', picked.size > 0);
  for (const button of legend.querySelectorAll('button[data-id]')) {
    button.setAttribute('aria-pressed', picked.has(Number(button.dataset.id)));
  }
}

legend.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const top = legend.scrollTop;
  if (button.classList.contains('all')) {
    picked.clear();
  } else if (button.classList.contains('whole')) {
    const ids = data.groups.filter((group) => group.class === button.textContent).map((group) => group.id);
    const every = ids.every((id) => picked.has(id));
    for (const id of ids) picked[every ? 'delete' : 'add'](id);
  } else {
    const id = Number(button.dataset.id);
    if (!picked.delete(id)) picked.add(id);
  }
  drawLegend();
  legend.scrollTop = top;
  if (!listening || !data) return;
  const opacities = data.styles.map(({ groups, points }) => opacity(groups, points));
  Plotly.restyle(plot, { 'marker.opacity': opacities }, [...opacities.keys()]);
});

function update() {
  const value = props.value;
  const drawn = value?.x !== undefined;
  if (!drawn || value.pending !== undefined) {
    expected = value?.pending ?? null;
    asked = null;
  }
  // A picture that was under way when something else was asked for.
  if (drawn && expected !== null && value.name !== expected) return;
  data = null;
  leave();
  if (!drawn) {
    picked.clear();
    frame.classList.remove('drawn');
    delete frame.dataset.result;
    drawLegend();
    askForPoints();
    return;
  }
  data = read(value);
  const ids = new Set(data.groups.map((group) => group.id));
  picked = new Set([...picked].filter((id) => ids.has(id)));
  marked = null;
  cards = new Map();
  drawLegend();
  draw();
  // On a narrow page the button that led here is a screen away.
  if (!visible && frame.offsetParent) frame.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
}

function askForPoints() {
  if (!visible || expected === null || asked === expected || data) return;
  asked = expected;
  trigger('shown', { name: expected });
}

watch('value', update);
new IntersectionObserver((entries) => {
  const was = visible;
  visible = entries[entries.length - 1].isIntersecting;
  if (visible && !was) {
    askForPoints();
    if (data) draw();
  }
}).observe(frame);
new ResizeObserver(() => {
  if (visible && listening && frame.offsetWidth) Plotly.Plots.resize(plot);
}).observe(frame);
new MutationObserver(() => {
  if (visible && data) draw();
}).observe(document.body, { attributes: true, attributeFilter: ['class'] });
update();
