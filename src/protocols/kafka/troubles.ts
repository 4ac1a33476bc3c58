/**
 * What is wrong now, told once per change: another kind of trouble is one, the same with another partition or in other words is not.
 *
 * @module
 */
import type { ErrorCode, MillraceError } from '../../core/errors.ts';
import type { ConsumerListener } from './client.ts';

export class Troubles {
  readonly #listener: Pick<ConsumerListener, 'trouble' | 'recovered'>;
  /** By what it is about. */
  readonly #now = new Map<string, ErrorCode>();
  silent = false;

  constructor(listener: Pick<ConsumerListener, 'trouble' | 'recovered'>) {
    this.#listener = listener;
  }

  raise(about: string, error: MillraceError): void {
    if (this.silent) return;
    const told = [...this.#now.values()].includes(error.code);
    this.#now.set(about, error.code);
    if (!told) this.#listener.trouble(error);
  }

  over(about: string): void {
    if (this.#now.delete(about) && this.#now.size === 0 && !this.silent) this.#listener.recovered();
  }
}
