/**
 * The one line of Java's login configuration that Kafka's clients have: `<class of the login module> required key="value" …;`
 * (https://kafka.apache.org/documentation/#security_sasl_jaasconfig).
 *
 * @module
 */
import { MillraceError } from '../../core/errors.ts';

export interface Jaas {
  /** The last part of the class name. */
  readonly module: string;
  readonly options: Readonly<Record<string, string>>;
}

const modules: readonly string[] = [
  'org.apache.kafka.common.security.plain.PlainLoginModule',
  'org.apache.kafka.common.security.scram.ScramLoginModule',
  'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule',
];

const wrong = (what: string) =>
  new MillraceError(
    'MR_CONFIG',
    `${what}. Expected one line such as ${modules[1] ?? ''} required username="…" password="…";`,
  );

/** @throws MR_CONFIG if it is none, or of a login module that is not built in. Values are in no message. */
export const parseJaas = (text: string): Jaas => {
  const [head = '', className] = /^\s*([\w.$]+)\s+(?:required|requisite|sufficient|optional)\b/i.exec(text) ?? [];
  if (className === undefined) throw wrong('the login module and the word `required` are missing');
  if (!modules.includes(className)) throw wrong(`the login module ${className} is not built in`);
  const options: Record<string, string> = {};
  const entry = /\s*([\w.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))/y;
  let at = head.length;
  for (entry.lastIndex = at; ; at = entry.lastIndex) {
    const [, key, quoted, bare] = entry.exec(text) ?? [];
    if (key === undefined) break;
    options[key] = quoted?.replace(/\\(.)/g, '$1') ?? bare ?? '';
  }
  if (!/^\s*;\s*$/.test(text.slice(at)))
    throw wrong(
      `what follows ${Object.keys(options).at(-1) ?? className} is neither key="value" nor the semicolon at the end`,
    );
  return { module: className.slice(className.lastIndexOf('.') + 1), options };
};
