// What every chart starts with, with Gradio's element and props in scope.
// The package's own library, fetched when something is first drawn and held apart from any other window.Plotly.
function library() {
  window.fgdemoPlotly ??= new Promise((resolve, reject) => {
    const other = window.Plotly;
    const script = document.createElement('script');
    const root = (window.gradio_config?.root || new URL('.', document.baseURI).href).replace(/\/$/, '');
    script.src = `${root}/gradio_api/file=${encodeURI(props.library)}`;
    script.onload = () => {
      const own = window.Plotly;
      if (other) window.Plotly = other;
      resolve(own);
    };
    script.onerror = () => reject(new Error('plotly.min.js could not be loaded'));
    document.head.appendChild(script);
  });
  return window.fgdemoPlotly;
}

function variable(name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

function node(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

