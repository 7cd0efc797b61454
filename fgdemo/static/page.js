// What every page starts with: its data, colours of the theme, and plotly set to talk to nobody.
const data = JSON.parse(document.getElementById('data').textContent);
const touch = window.matchMedia('(pointer: coarse)').matches;

const CONFIG = {
  displaylogo: false, displayModeBar: touch ? false : 'hover', showSendToCloud: false, plotlyServerURL: '',
  responsive: true, doubleClick: 'reset', scrollZoom: false,
  modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'],
};

function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Texts from outside reach the page here alone, and never as HTML.
function node(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function mark(css) {
  const made = node('i', undefined, 'mark');
  made.style.cssText = css;
  return made;
}

function decode(text, Kind) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}

function themed() {
  const clear = 'rgba(0,0,0,0)';
  return {
    paper_bgcolor: clear, plot_bgcolor: clear, showlegend: false, dragmode: touch ? false : 'zoom',
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: variable('--quiet') },
    modebar: { bgcolor: clear, color: variable('--quiet'), activecolor: variable('--ink') },
    hoverlabel: {
      bgcolor: variable('--surface'), bordercolor: variable('--line'), align: 'left', namelength: -1,
      font: { color: variable('--ink'), size: 13 },
    },
  };
}

function onThemeChange(draw) {
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
}
