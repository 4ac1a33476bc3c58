/**
 * What is asked of a package for Kafka: connections to brokers, logged in. All that goes over them is ours, so that both packages
 * have one behaviour; see `requests.ts`.
 *
 * @module
 */

/** What every answer has. */
export interface Answered {
  /** In ms: how long the broker wants to be left alone on this connection. */
  readonly throttle: number;
}

/** A request of https://kafka.apache.org/protocol, and how its answer is read. */
export interface Request<Answer extends Answered> {
  readonly name: string;
  readonly key: number;
  readonly version: number;
  /** All behind the header, version 1 of which every request here has. */
  readonly body: Buffer;
  /** From all behind the number of the request. */
  readonly decode: (answer: Buffer) => Answer;
  /** In ms. The broker may think so long about it; what a wire waits at most is not less. */
  readonly patience?: number;
  /** Brokers do not answer it. `ask` resolves with what is decoded from nothing. */
  readonly silent?: boolean;
}

/**
 * The way to one broker. Requests of one wire are answered in turn, except for Fetch: that has a connection of its own, because
 * it may wait for records.
 */
export interface Wire {
  /** False before it is connected, and when there has to be another one instead; then it is asked nothing. */
  readonly usable: boolean;
  /** Logs in as well. What it rejects with, and `ask`, are errors of ours that name the broker. */
  connect(): Promise<void>;
  /**
   * Resolves with the answer, whatever that says. MR_KAFKA_UNREACHABLE and MR_KAFKA_LOGIN mean that there is none to be had on this
   * wire.
   */
  ask<Answer extends Answered>(request: Request<Answer>): Promise<Answer>;
  /** Whatever is on its way fails with this. */
  cut(why: Error): void;
}

/** A package. */
export interface Wires {
  /** The name and the words that it has for a code by which brokers refuse. */
  wordsFor(code: number): { readonly type: string; readonly message: string };
  /** Connects nothing yet. `requestTimeout`: in ms. */
  open(to: { readonly host: string; readonly port: number }, requestTimeout: number): Wire;
}
