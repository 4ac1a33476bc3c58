import { createSink, createSource, event, run } from 'millrace';

/** Reads a table page by page; remembers the last row that was delivered, not the last that was read. */
const pages = [['ann', 'bob'], ['cy'], ['dee', 'eve']];
let delivered = 0;

const table = createSource<ReturnType<typeof event>, number>(emitter => {
  let next = delivered;
  return {
    pull() {
      const page = pages[next];
      if (page === undefined) emitter.complete();
      else
        emitter.emit(
          page.map(name => event(name)),
          ++next,
        );
    },
    settled(page, what) {
      if (what === 'acked') delivered = page;
    },
  };
});

const seen: string[] = [];
await run(
  table,
  createSink(events => void seen.push(...events.map(({ body }) => body.toString()))),
).done;
console.log(seen.join(' '), delivered); // ann bob cy dee eve 3
