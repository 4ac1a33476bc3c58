/**
 * How far files were delivered, as durable channels know it: they have it with the lines themselves, and so before the
 * position file, which is written after their ack. Who starts again goes on where the last lines are that they have.
 *
 * @module
 */
import type { SourceOffset } from '../../core/event.ts';
import { LazyOffset } from '../lazy-offset.ts';
import { formatPositions, parsePositions, type Position, type SavedPositions } from './position-file.ts';
import type { Sent } from './progress.ts';
import type { TailFile } from './tail-file.ts';

/** The position behind what is on its way. */
export const fileOffset = (prefix: string, file: TailFile, sent: Sent): SourceOffset =>
  new LazyOffset(prefix + file.key, () => formatPositions([file.reached(sent)], true));

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
