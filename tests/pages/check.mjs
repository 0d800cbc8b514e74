// usage: node check.mjs BASE_URL PATH    (BASE_URL of a running proxy, PATH of a route whose answer is cached)
// Loads the pages for people as a browser does, with their own scripts, and says `pages: ok` when they show what they should and
// ask nobody but the proxy.
import { createRequire } from 'node:module';
import { strict as assert } from 'node:assert';

const require = createRequire(process.env.PAGES_MODULES ?? import.meta.url);
const { JSDOM, ResourceLoader, VirtualConsole } = require('jsdom');
const [base, path] = process.argv.slice(2);
const PATIENCE = 30_000;

const asked = [];
class Recorder extends ResourceLoader {
  fetch(url, options) {
    asked.push(url);
    return super.fetch(url, options);
  }
}

function ask(url, options) {
  const whole = new URL(url, base).href;
  asked.push(whole);
  return fetch(whole, options);
}

// What jsdom has not got: a stream of events that is asked for again when it ends, as the page expects of browsers.
class EventSource {
  constructor(url) {
    this.closed = false;
    this.run(url);
  }
  async run(url) {
    for (let retry = 1000; !this.closed; await sleep(retry)) {
      const text = await (await ask(url)).text();
      for (const event of text.split('\n\n').filter(Boolean)) {
        const fields = event.split('\n').map((line) => line.split(/: (.*)/s));
        retry = Math.min(250, Number(fields.find(([name]) => name === 'retry')?.[1] ?? retry));
        this.onmessage?.({ data: fields.filter(([name]) => name === 'data').map(([, value]) => value).join('\n') });
      }
    }
  }
  close() {
    this.closed = true;
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function eventually(what, condition) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${PATIENCE} ms: ${what}`);
    await sleep(20);
  }
}

async function open(page, prepare) {
  const errors = [];
  const virtualConsole = new VirtualConsole();
  virtualConsole.on('jsdomError', (error) => errors.push(error));
  asked.push(base + page);
  const dom = await JSDOM.fromURL(base + page, {
    runScripts: 'dangerously',
    pretendToBeVisual: true,
    resources: new Recorder(),
    virtualConsole,
    beforeParse: prepare,
  });
  return { dom, document: dom.window.document, errors };
}

async function dashboard() {
  const sources = [];
  const { dom, document, errors } = await open('/dashboard', (window) => {
    window.EventSource = class extends EventSource {
      constructor(url) {
        super(url);
        sources.push(this);
      }
    };
  });
  const cards = () =>
    Object.fromEntries([...document.querySelectorAll('.card')].map((card) => [card.querySelector('span').textContent, card.querySelector('b').textContent]));
  const rows = (id) => [...document.querySelectorAll(`#${id} tr`)].map((row) => [...row.cells].map((cell) => cell.textContent));
  await eventually('the first figures', () => 'HTTP requests/s' in cards());
  assert.ok(rows('mappings').length > 1, 'mappings are listed');
  assert.ok(rows('nodes').length > 1, 'nodes are listed');
  // Figures move while there is traffic.
  let running = true;
  const traffic = (async () => {
    while (running) await (await fetch(base + path)).text();
  })();
  const hits = () => rows('mappings').slice(1).some((row) => Number.parseFloat(row[1]) > 0);
  await eventually('requests are shown', () => Number.parseFloat(cards()['HTTP requests/s']) > 0 && hits());
  const line = document.querySelector('#line polyline').getAttribute('points');
  assert.ok(line.split(' ').length > 1, line);
  assert.match(cards()['hit rate'], /%$/);
  assert.match(cards().p50, /us$|ms$|s$/);
  running = false;
  await traffic;
  await eventually('it is quiet again', () => !hits());
  assert.deepEqual(errors, []);
  sources.forEach((source) => source.close());
  dom.window.close();
}

async function swagger() {
  const { dom, document, errors } = await open('/swagger', (window) => {
    window.fetch = ask;
    window.Request = Request;
    window.Response = Response;
    window.Headers = Headers;
    window.matchMedia ??= () => ({ matches: false, addEventListener() {}, removeEventListener() {} });
    window.scrollTo = () => {};
  });
  const described = await (await fetch(`${base}/openapi.json`)).json();
  const operations = Object.values(described.paths).flatMap((methods) => Object.keys(methods)).length;
  await eventually('the operations are listed', () => document.querySelectorAll('.opblock').length === operations);
  const shown = [...document.querySelectorAll('.opblock-summary-path')].map((node) => node.textContent.replaceAll('\u200b', ''));
  for (const path of Object.keys(described.paths)) assert.ok(shown.includes(path), `${path} in ${shown}`);
  assert.deepEqual(errors, []);
  dom.window.close();
}

await dashboard();
await swagger();
for (const url of asked) assert.ok(url.startsWith(`${base}/`), `the page asked ${url}`);
assert.ok(asked.includes(`${base}/swagger/swagger-ui-bundle.js`) && asked.includes(`${base}/dashboard/events`), String(asked));
console.log('pages: ok');
process.exit(0);
