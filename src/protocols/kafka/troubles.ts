/**
 * What is wrong now, told once per change: another kind of trouble is one, the same with another partition or in other words is not.
 *
 * @module
 */
import type { MillraceError } from '../../core/errors.ts';
import type { ConsumerListener } from './client.ts';

export class Troubles {
  readonly #listener: Pick<ConsumerListener, 'trouble' | 'recovered'>;
  /** By what it is about. */
  readonly #now = new Map<string, MillraceError>();
  /** The last that was told. */
  #told: MillraceError | undefined;
  silent = false;

  constructor(listener: Pick<ConsumerListener, 'trouble' | 'recovered'>) {
    this.#listener = listener;
  }

  raise(about: string, error: MillraceError): void {
    if (this.silent) return;
    const known = this.#has(error);
    this.#now.set(about, error);
    if (!known) this.#tell(error);
  }

  over(about: string): void {
    if (!this.#now.delete(about) || this.silent || this.#has(this.#told)) return;
    const [still] = this.#now.values();
    if (still !== undefined) return this.#tell(still);
    this.#told = undefined;
    this.#listener.recovered();
  }

  #tell(error: MillraceError): void {
    this.#told = error;
    this.#listener.trouble(error);
  }

  /** Something of that kind is wrong now. */
  #has(error: MillraceError | undefined): boolean {
    return [...this.#now.values()].some(({ code }) => code === error?.code);
  }
}
