/**
 * Source offsets that are made only for who asks: most channels keep none.
 *
 * @module
 */
import type { SourceOffset } from '../core/event.ts';
import { fingerprint } from './tailing/fingerprint.ts';

/** Which offsets are those of the source of this type that keeps its positions in this place. */
export const prefixOf = (type: string, place: string): string => `${type} ${fingerprint(Buffer.from(place)).hash} `;

export class LazyOffset implements SourceOffset {
  readonly key: string;
  readonly #make: () => string;
  #value: string | undefined;

  constructor(key: string, make: () => string) {
    this.key = key;
    this.#make = make;
  }

  get value(): string {
    return (this.#value ??= this.#make());
  }
}
