/**
 * The broker that looks after a group, or after the transactions of an id. It moves: whoever had it before says so, or does not
 * answer, and then it is looked for again.
 *
 * @module
 */
import { elsewhere, Refused } from '../refused.ts';
import { wait } from '../waiting.ts';
import type { Cluster, Node } from './cluster.ts';
import { refusalIn, type Refusable } from './requests.ts';
import type { Request } from './wire.ts';

/** How long to wait after so many refusals before it is asked again, in ms; undefined when it is not. */
export type Patience = (refusals: number) => number | undefined;

export class Coordinator {
  /** Of the group, or of the transactions. */
  readonly id: string;
  readonly #cluster: Cluster;
  readonly #of: 'group' | 'transactions';
  #node: Node | undefined;
  /** It has said that it is not the one, or not yet. */
  #moved = false;

  constructor(cluster: Cluster, id: string, of: 'group' | 'transactions' = 'group') {
    this.#cluster = cluster;
    this.id = id;
    this.#of = of;
  }

  /** Of the one that was found last. */
  get address(): string {
    return this.#node?.address ?? 'unknown';
  }

  /** Looks for it, whatever was known. */
  async find(): Promise<Node> {
    this.#node = await this.#cluster.coordinator(this.id, this.#of);
    this.#moved = false;
    return this.#node;
  }

  /** The one that is known, if there is a way to it. */
  async node(): Promise<Node> {
    return this.#node?.usable === true && !this.#moved ? this.#node : this.find();
  }

  /** Whatever is on its way to it fails. */
  drop(): void {
    this.#node?.drop();
  }

  /** Asks it; again, as far as `patience` goes, while it is elsewhere or answers with a code of `busy`. */
  async ask<A extends Refusable>(
    request: Request<A>,
    doing: string,
    patience: Patience,
    busy: ReadonlySet<number> = new Set(),
  ): Promise<A> {
    for (let refusals = 1; ; refusals++) {
      try {
        const node = await this.node();
        const answer = await node.ask(request);
        const refusal = refusalIn(answer);
        if (refusal === undefined) return answer;
        throw this.#cluster.refused(refusal.errorCode, `broker ${node.address}, ${doing}${refusal.where}`);
      } catch (thrown) {
        if (!(thrown instanceof Refused)) throw thrown;
        if (elsewhere.has(thrown.broker)) this.#moved = true;
        else if (!busy.has(thrown.broker)) throw thrown;
        const ms = patience(refusals);
        if (ms === undefined || this.#cluster.closed.aborted) throw thrown;
        await wait(ms, this.#cluster.closed);
      }
    }
  }
}
