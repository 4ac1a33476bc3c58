/**
 * What is wrong now, told once per change.
 *
 * @module
 */
import type { MillraceError } from '../../../core/errors.ts';
import type { ConsumerListener } from '../client.ts';

export class Troubles {
  readonly #listener: Pick<ConsumerListener, 'trouble' | 'recovered'>;
  /** What it is about → message. */
  readonly #now = new Map<string, string>();
  silent = false;

  constructor(listener: Pick<ConsumerListener, 'trouble' | 'recovered'>) {
    this.#listener = listener;
  }

  raise(about: string, error: MillraceError): void {
    const { message } = error;
    if (this.silent || this.#now.get(about) === message) return;
    const told = [...this.#now.values()].includes(message);
    this.#now.set(about, message);
    if (!told) this.#listener.trouble(error);
  }

  over(about: string): void {
    if (this.#now.delete(about) && this.#now.size === 0 && !this.silent) this.#listener.recovered();
  }
}
