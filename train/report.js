// One chart a metric: thin lines for seeds, a thick one for the mean of the finished ones, one colour a group.
const charts = document.querySelector('.charts');
const controls = document.querySelector('.controls');
const hidden = new Set();
let unit = data.groups.every((group) => group.stepsPerEpoch) ? 'epoch' : 'step';

const decoded = data.metrics.map(({ name, lines }) => ({
  name,
  lines: lines.map((line) => ({
    ...line, steps: decode(line.steps, Float32Array), values: decode(line.values, Float32Array),
  })),
}));

// plotly reads a few tags in its texts.
function inert(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function traces({ lines }) {
  return lines.filter((line) => !hidden.has(line.group)).map((line) => {
    const group = data.groups[line.group];
    const scale = unit === 'epoch' ? 1 / group.stepsPerEpoch : 1;
    return {
      type: 'scatter', mode: line.values.length > 1 ? 'lines' : 'markers',
      x: Array.from(line.steps, (step) => step * scale), y: line.values,
      text: new Array(line.values.length).fill(inert(`${group.name}: ${line.label}`)),
      hovertemplate: `%{text}<br>${unit} %{x:.5~g}<br><b>%{y:.5~g}</b><extra></extra>`,
      opacity: line.thick ? 1 : 0.4,
      line: { color: group.colour, width: line.thick ? 2.4 : 1.2, dash: line.finished ? 'solid' : 'dot' },
      marker: { color: group.colour, size: line.thick ? 8 : 5 },
    };
  });
}

function layout() {
  const axis = { gridcolor: variable('--line'), zeroline: false, automargin: true, tickformat: '~g' };
  return {
    ...themed(), hovermode: 'closest', margin: { l: 44, r: 12, t: 8, b: 36 },
    xaxis: { ...axis, title: { text: unit, standoff: 6 } }, yaxis: { ...axis, nticks: 6 },
  };
}

const figures = decoded.map((metric) => {
  const figure = node('figure');
  const plot = node('div', undefined, 'plot');
  plot.setAttribute('role', 'img');
  plot.setAttribute('aria-label', `Curves of ${metric.name}`);
  figure.append(node('figcaption', metric.name), plot);
  charts.append(figure);
  return plot;
});

async function draw() {
  await Promise.all(decoded.map((metric, i) => Plotly.react(figures[i], traces(metric), layout(), CONFIG)));
  charts.dataset.drawn = unit;
}

function press(text, pressed, action, css) {
  const made = node('button');
  made.type = 'button';
  if (css) made.append(mark(css));
  made.append(text);
  made.setAttribute('aria-pressed', pressed);
  made.addEventListener('click', () => action(made));
  controls.append(made);
  return made;
}

if (unit === 'epoch') {
  const units = ['epoch', 'step'].map((name) => press(`by ${name}`, name === unit, (pressed) => {
    unit = name;
    units.forEach((other) => other.setAttribute('aria-pressed', other === pressed));
    draw();
  }));
}
if (data.groups.length > 1) {
  controls.classList.add('picking');
  data.groups.forEach(({ name, mark: css }, i) => press(name, true, (pressed) => {
    hidden[hidden.has(i) ? 'delete' : 'add'](i);
    pressed.setAttribute('aria-pressed', !hidden.has(i));
    draw();
  }, css));
}
draw();
onThemeChange(draw);
