/**
 * How far files were delivered, as durable channels know it: they have it with the lines themselves, and so before the
 * position file, which is written after their ack. Who starts again goes on where the last lines are that they have.
 *
 * @module
 */
import type { SourceOffset } from '../../core/event.ts';
import { fingerprint } from './fingerprint.ts';
import { formatPositions, parsePositions, type Position, type SavedPositions } from './position-file.ts';
import type { Sent } from './progress.ts';
import type { TailFile } from './tail-file.ts';

/** Which offsets are those of the source with this position file. */
export const prefixOf = (positionFile: string): string => `taildir ${fingerprint(Buffer.from(positionFile)).hash} `;

/** The position behind what is on its way. It is only made for who asks. */
export class FileOffset implements SourceOffset {
  readonly key: string;
  readonly #file: TailFile;
  readonly #sent: Sent;
  #value: string | undefined;

  constructor(prefix: string, file: TailFile, sent: Sent) {
    this.key = prefix + file.key;
    this.#file = file;
    this.#sent = sent;
  }

  get value(): string {
    return (this.#value ??= formatPositions([this.#file.reached(this.#sent)], true));
  }
}

/** The saved positions, or what a channel knows where that is further. */
export const withOffsets = (saved: SavedPositions, offsets: ReadonlyMap<string, string>): SavedPositions => {
  const positions = [...saved.positions];
  for (const value of offsets.values()) {
    const [known] = parsePositions(value).positions;
    if (known === undefined) continue;
    const at = positions.findIndex(({ inode }) => inode === known.inode);
    if (at < 0) positions.push(known);
    else if (isFurther(known, positions[at] as Position)) positions[at] = known;
  }
  return { ...saved, positions };
};

/** Of files with the same inode, those that were made at other times are others: the saved one is the later one. */
const isFurther = (known: Position, saved: Position): boolean => {
  const other = saved.evidence !== undefined && saved.evidence.born !== known.evidence?.born;
  return !other && known.pos > saved.pos;
};
