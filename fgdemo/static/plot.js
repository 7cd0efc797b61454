// One WebGL trace of all points, a legend that picks groups out, a card for the point under the pointer.
const frame = document.querySelector('.frame');
const plot = document.querySelector('.plot');
const card = document.querySelector('.card');
const legend = document.querySelector('.legend');

const MANY = 20000;
const groups = data.groups;
const x = decode(data.x, Float32Array);
const y = decode(data.y, Float32Array);
const code = decode(data.code, Uint32Array);
const classCode = decode(data.class, Uint32Array);
const subclassCode = decode(data.subclass, Uint32Array);
const pictures = data.pictures && {
  bytes: decode(data.pictures.bytes, Uint8Array), offsets: decode(data.pictures.offsets, Uint32Array),
};
const picked = new Set();
let address = null;

const webgl = (() => {
  try {
    return Boolean(document.createElement('canvas').getContext('webgl'));
  } catch {
    return false;
  }
})();

function markerSize() {
  const room = Math.max(0.7, Math.min(1, frame.offsetWidth / 560));
  return Math.max(3, Math.min(10, 22 - 4.2 * Math.log10(x.length + 1)) * room);
}

function opacity() {
  const [full, faded] = x.length > MANY ? [0.7, 0.012] : [0.9, 0.07];
  if (picked.size === 0) return full;
  return Float32Array.from(code, (group) => (picked.has(group) ? full : faded));
}

function trace() {
  return {
    type: webgl ? 'scattergl' : 'scatter', mode: 'markers', hoverinfo: 'none', x, y,
    marker: {
      color: Array.from(code, (group) => groups[group].colour),
      symbol: Array.from(code, (group) => groups[group].symbol),
      size: markerSize(), opacity: opacity(),
      line: { width: x.length > 5000 ? 0 : 0.6, color: variable('--surface') },
    },
  };
}

function layout() {
  const axis = { visible: false, zeroline: false };
  return {
    ...themed(), uirevision: 'kept', hovermode: 'closest', hoverdistance: touch ? 24 : 12,
    margin: { l: 14, r: 14, t: 14, b: 14 }, xaxis: { ...axis }, yaxis: { ...axis, scaleanchor: 'x' },
  };
}

async function draw() {
  await Plotly.react(plot, [trace()], layout(), CONFIG);
  frame.dataset.points = x.length;
}

function show({ points: found, event }) {
  const point = found[0].pointNumber;
  const group = groups[code[point]];
  const text = node('div');
  const title = node('b');
  title.append(mark(group.mark), `${data.colour} ${group.name}`);
  text.append(title);
  const of = { class: data.classes[classCode[point]], subclass: data.subclasses[subclassCode[point]] };
  for (const [kind, name] of Object.entries(of)) if (kind !== data.colour) text.append(node('span', `${kind} ${name}`));
  text.append(node('span', data.keys[point]));
  card.replaceChildren(text);
  showPicture(point);
  place(event);
  card.classList.add('on');
}

function showPicture(point) {
  if (address) URL.revokeObjectURL(address);
  address = null;
  const bytes = pictures?.bytes.subarray(pictures.offsets[point], pictures.offsets[point + 1]);
  if (!bytes?.length) return;
  address = URL.createObjectURL(new Blob([bytes], { type: 'image/webp' }));
  const picture = node('img');
  picture.src = address;
  picture.alt = '';
  card.prepend(picture);
}

function place(event) {
  const box = frame.getBoundingClientRect();
  const at = event.changedTouches?.[0] ?? event;
  const left = at.clientX - box.left + 18;
  const before = left - 36 - card.offsetWidth;
  card.style.left = `${left + card.offsetWidth > box.width ? Math.max(4, before) : left}px`;
  card.style.top = `${Math.max(4, Math.min(at.clientY - box.top - 20, box.height - card.offsetHeight - 4))}px`;
}

function toggle(...chosen) {
  const every = chosen.every((group) => picked.has(group));
  for (const group of chosen) picked[every ? 'delete' : 'add'](group);
  refresh();
}

function refresh() {
  legend.classList.toggle('picking', picked.size > 0);
  legend.querySelector('.all').disabled = picked.size === 0;
  legend.querySelectorAll('[data-group]').forEach((button) => {
    button.setAttribute('aria-pressed', picked.has(Number(button.dataset.group)));
  });
  Plotly.restyle(plot, { 'marker.opacity': [opacity()] });
}

function button(className, action, ...content) {
  const made = node('button', undefined, className);
  made.type = 'button';
  made.append(...content);
  made.addEventListener('click', action);
  return made;
}

function drawLegend() {
  const all = button('all', () => { picked.clear(); refresh(); }, 'Show all');
  all.disabled = true;
  legend.append(all);
  const families = new Map();
  groups.forEach(({ parent }, i) => families.set(parent, [...(families.get(parent) ?? []), i]));
  for (const [parent, members] of families) {
    const row = node('div', undefined, 'family');
    if (parent) row.append(button('whole', () => toggle(...members), parent));
    for (const i of members) {
      const { mark: css, name, size } = groups[i];
      const made = button('', () => toggle(i), mark(css), name, node('small', size.toLocaleString('en')));
      made.dataset.group = i;
      made.setAttribute('aria-pressed', false);
      row.append(made);
    }
    legend.append(row);
  }
}

drawLegend();
draw().then(() => {
  plot.on(touch ? 'plotly_click' : 'plotly_hover', show);
  if (!touch) plot.on('plotly_unhover', () => card.classList.remove('on'));
});
onThemeChange(draw);
