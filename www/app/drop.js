// Files dropped onto the page, or picked: sorted into adapters, loaded, and reported on in the package's own words.
import { $, bytesText, el, errorNodes } from './dom.js';
import { nameOf } from './languages.js';

/** Files by path, from what was dropped. Folders are walked. */
async function filesOf(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === 'file').map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const files = new Map();
  const walk = async (entry) => {
    if (!entry) return;
    if (entry instanceof File) files.set(entry.name, entry);
    else if (entry.isFile) {
      files.set(entry.fullPath.replace(/^\//, ''), await new Promise((resolve, reject) => entry.file(resolve, reject)));
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      // A reader gives a hundred at a time.
      for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (some.length === 0) break;
        for (const each of some) await walk(each);
      }
    }
  };
  for (const entry of entries) await walk(entry);
  return files;
}

const folderOf = (path) => path.slice(0, path.lastIndexOf('/') + 1);
const lastOf = (path) => path.slice(path.lastIndexOf('/') + 1);

/** Adapters among files: a folder with a configuration is one; any other file of weights is one by itself. */
export function adaptersAmong(files) {
  const paths = [...files.keys()].filter((path) => !path.split('/').some((part) => part.startsWith('.')));
  const folders = [...new Set(paths.filter((path) => lastOf(path) === 'adapter_config.json').map(folderOf))];
  const found = folders.map((folder) => {
    const inside = paths.filter((path) => folderOf(path) === folder);
    return { name: lastOf(folder.slice(0, -1)) || 'adapter', files: new Map(inside.map((path) => [lastOf(path), files.get(path)])) };
  });
  const rest = paths.filter((path) => !folders.includes(folderOf(path)));
  const weights = rest.filter((path) => /\.(safetensors|bin|pt|pth|npz|zip|gguf|onnx)$/i.test(path));
  for (const path of weights) found.push({ name: lastOf(path), files: new Map([[lastOf(path), files.get(path)]]) });
  // Nothing of the kind: the package says best what is wrong with it.
  if (found.length === 0 && rest.length > 0) {
    found.push({ name: lastOf(rest[0]), files: new Map(rest.map((path) => [path, files.get(path)])) });
  }
  return found;
}

/** `load({ name, files })` loads one and gives `{ name, report }`, or rejects. */
export function dropZone({ load, isReady }) {
  const reports = $('reports');
  const note = (kind, ...nodes) => {
    reports.prepend(el('article', { class: `report ${kind}` }, ...nodes));
    reports.firstElementChild.scrollIntoView?.({ block: 'nearest' });
  };

  async function take(files) {
    if (files.size === 0) return;
    if (!isReady()) {
      note('failed', el('p', { class: 'error-title', text: 'An adapter is grafted onto a model: download the model first.' }));
      return;
    }
    for (const adapter of adaptersAmong(files)) {
      const start = performance.now();
      try {
        const { name, report } = await load(adapter);
        note('done', ...reportNodes(adapter.name, name, report, performance.now() - start));
      } catch (error) {
        note('failed', ...errorNodes(`${adapter.name} was not loaded.`, error));
      }
    }
  }

  const failed = (error) => note('failed', ...errorNodes('The files could not be read.', error));
  let depth = 0;
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
  const veil = (on) => {
    $('veil').hidden = !on;
    $('drop').classList.toggle('over', on);
  };
  addEventListener('dragenter', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth += 1;
    veil(true);
  });
  addEventListener('dragover', (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  addEventListener('dragleave', (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    if (depth === 0) veil(false);
  });
  addEventListener('drop', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    veil(false);
    filesOf(event.dataTransfer).then(take).catch(failed);
  });
  for (const [button, input] of [['pick-files', 'files'], ['pick-folder', 'folder']]) {
    $(button).addEventListener('click', () => $(input).click());
    $(input).addEventListener('change', () => {
      const files = new Map([...$(input).files].map((file) => [file.webkitRelativePath || file.name, file]));
      $(input).value = '';
      take(files).catch(failed);
    });
  }
  return { enable: (on) => [$('pick-files'), $('pick-folder')].forEach((button) => (button.disabled = !on)) };
}

const bases = {
  exact: 'made for exactly this base',
  unknown: 'does not say which base it was made for; its shapes fit',
  overridden: 'made for another base',
};

function reportNodes(file, name, report, ms) {
  const facts = [
    ['Name in compositions', el('code', { text: name })],
    ['Family', report.family],
    ['Base', bases[report.base] ?? report.base],
    ['Language', report.language && `${nameOf(report.language)} (${report.language})`],
    ['Changes', `${report.applied}, ${bytesText(report.bytes)}`],
    ['Sites', report.sites.join(', ')],
    ['Not used', report.unused.join(', ')],
    ['Missing', report.missing.join(', ')],
    ['Head', report.head && `${report.head} outputs`],
    ['Notes', report.notes.join(' ')],
  ].filter(([, value]) => value);
  return [
    el('p', { class: 'report-title', text: `${file} was loaded in ${Math.max(1, Math.round(ms))} ms and is a chip now.` }),
    el('dl', { class: 'facts' }, ...facts.flatMap(([term, value]) => [el('dt', { text: term }), el('dd', {}, value)])),
  ];
}
