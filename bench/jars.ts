/**
 * Jars of real servers, to measure and to test against. They come from Maven Central into `bench/.cache/<name>` on first
 * use, which takes Maven and half a minute.
 *
 * @module
 */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { benchDir, madeOnce } from './processes.ts';

export interface JarsOptions {
  /** The folder in the cache. */
  readonly name: string;
  /** What needs them, for messages. */
  readonly title: string;
  /** `group:artifact:version`; what they depend on comes along. Exact versions only: a range takes minutes. */
  readonly artifacts: readonly string[];
  /** `group:artifact` of what shall not come along. */
  readonly without?: readonly string[];
  /** Lists of versions, for what the artifacts leave open. */
  readonly boms?: readonly string[];
  /** Name → content of files that are wanted on the class path. */
  readonly files?: Readonly<Record<string, string>>;
}

export interface Jars {
  /** Why they cannot be had or run here, or undefined. */
  readonly missing: () => string | undefined;
  /** The class path; fetches what is not there. Safe when several processes ask at once. */
  readonly classpath: () => Promise<string>;
}

const dependency = (coordinates: string, more = ''): string => {
  const [group, artifact, version] = coordinates.split(':');
  return `<dependency><groupId>${group!}</groupId><artifactId>${artifact!}</artifactId><version>${version!}</version>${more}</dependency>`;
};

const exclusions = (without: readonly string[]): string =>
  `<exclusions>${without
    .map(coordinates => coordinates.split(':'))
    .map(
      ([group, artifact]) => `<exclusion><groupId>${group!}</groupId><artifactId>${artifact!}</artifactId></exclusion>`,
    )
    .join('')}</exclusions>`;

const pom = ({
  name,
  artifacts,
  without = [],
  boms = [],
}: JarsOptions) => `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>${name}</artifactId><version>1</version>
  <dependencyManagement><dependencies>
    ${boms.map(bom => dependency(bom, '<type>pom</type><scope>import</scope>')).join('\n    ')}
  </dependencies></dependencyManagement>
  <dependencies>
    ${artifacts.map(artifact => dependency(artifact, exclusions(without))).join('\n    ')}
  </dependencies>
</project>
`;

const runs = (command: string, flag: string) => spawnSync(command, [flag], { stdio: 'ignore' }).status === 0;

export const jars = (options: JarsOptions): Jars => {
  const { name, title, files } = options;
  const home = join(benchDir, '.cache', name);
  const lib = join(home, 'lib');

  const fetchAll = async (folder: string) => {
    await writeFile(join(folder, 'pom.xml'), pom(options));
    const args = ['-q', '-B', 'dependency:copy-dependencies', '-DoutputDirectory=lib', '-DincludeScope=runtime'];
    await promisify(execFile)('mvn', args, { cwd: folder, timeout: 600_000 });
    for (const [file, content] of Object.entries(files ?? {})) await writeFile(join(folder, 'lib', file), content);
    return join(folder, 'lib');
  };

  let classpath: Promise<string> | undefined;
  return {
    missing() {
      if (!runs('java', '-version')) return `${title} needs Java 17: apt-get install openjdk-17-jre-headless`;
      if (!existsSync(lib) && !runs('mvn', '-v')) return `fetching ${title} needs Maven: apt-get install maven`;
      return undefined;
    },
    classpath: () =>
      (classpath ??= (async () => {
        await madeOnce(lib, fetchAll);
        const found = (await readdir(lib)).filter(file => file.endsWith('.jar')).sort();
        // A folder on the class path only if there is something to find: the JVM shares no classes with one.
        const paths = found.map(jar => join(lib, jar));
        return (files === undefined ? paths : [lib, ...paths]).join(delimiter);
      })()),
  };
};
