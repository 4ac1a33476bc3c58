/**
 * "Did you mean": the known word that was most likely meant.
 *
 * @module
 */

/** Edits that turn `a` into `b`, where swapping two neighbours is one edit (optimal string alignment). */
const distance = (a: string, b: string): number => {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min((above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (above[j - 1] ?? 0) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        least = Math.min(least, (before[j - 2] ?? 0) + 1);
      }
      row.push(least);
    }
    [before, above] = [above, row];
  }
  return above[b.length] ?? 0;
};

/** The candidate closest to `word` in any case, if it is close: one edit in three letters, and never more than four. */
export const nearest = (word: string, candidates: Iterable<string>): string | undefined => {
  if (word.length > 100) return undefined;
  let left = 1000; // More candidates than a person could mean; a hostile file could bring millions.
  let best: string | undefined;
  let least = Math.min(5, Math.max(1, Math.floor(word.length / 3)) + 1, word.length);
  for (const candidate of candidates) {
    if (left-- === 0) break;
    if (candidate === word || Math.abs(candidate.length - word.length) >= least) continue;
    const edits = distance(word.toLowerCase(), candidate.toLowerCase());
    if (edits < least) [best, least] = [candidate, edits];
  }
  return best;
};
