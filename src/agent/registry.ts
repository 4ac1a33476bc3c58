/**
 * Flume's names. This is the only place that knows them: which component answers to which `type`, and which types exist
 * in Flume although millrace does not have them yet. Components are imported when a configuration names them.
 *
 * @module
 */
import type { Observable } from 'rxjs';
import type { Channel, ChannelOptions } from '../core/channel.ts';
import type { ComponentInfo, Identity } from '../core/component.ts';
import type { Delivery } from '../core/delivery.ts';
import { nearest } from '../core/nearest.ts';
import type { Sink } from '../core/sink.ts';
import type { Entry } from './properties.ts';
import { oneOf, type Problems } from './report.ts';

/** A function of options. Written as a method, so that components with options of any shape are assignable. */
type Making<V> = { make(options: object, identity?: Identity): V }['make'];

export type SourceComponent = ComponentInfo & Making<Observable<Delivery>>;
export type ChannelComponent = ComponentInfo & {
  create(options: object, identity?: Identity, more?: Pick<ChannelOptions, 'reopen'>): Channel;
};
export type SinkComponent = ComponentInfo & Making<Sink>;

/** `type` → component. The type is Flume's alias or, where Flume has none, its class name. */
export type Table<C> = Readonly<Record<string, () => Promise<C>>>;

export interface Registry {
  readonly source: Table<SourceComponent>;
  readonly channel: Table<ChannelComponent>;
  readonly sink: Table<SinkComponent>;
}

export type Kind = keyof Registry;

/** What is built in. */
export const builtIn: Registry = {
  source: {
    exec: () => import('../sources/exec.ts').then(m => m.execSource),
    http: () => import('../sources/http.ts').then(m => m.httpSource),
    kafka: () => import('../sources/kafka.ts').then(m => m.kafkaSource),
    netcat: () => import('../sources/netcat.ts').then(m => m.netcatSource),
    seq: () => import('../sources/seq.ts').then(m => m.seqSource),
    spooldir: () => import('../sources/spooldir.ts').then(m => m.spooldirSource),
    taildir: () => import('../sources/taildir.ts').then(m => m.taildirSource),
  },
  channel: {
    file: () => import('../operators/channels/file.ts').then(m => m.fileChannel),
    kafka: () => import('../operators/channels/kafka.ts').then(m => m.kafkaChannel),
    memory: () => import('../operators/channels/memory.ts').then(m => m.memoryChannel),
    spillablememory: () => import('../operators/channels/spillablememory.ts').then(m => m.spillableChannel),
  },
  sink: {
    file_roll: () => import('../sinks/file-roll.ts').then(m => m.fileRollSink),
    kafka: () => import('../sinks/kafka.ts').then(m => m.kafkaSink),
    logger: () => import('../sinks/logger.ts').then(m => m.loggerSink),
    null: () => import('../sinks/null.ts').then(m => m.nullSink),
  },
};

/** Alias → class name, or class name → class name for what has no alias. */
type Names = Readonly<Record<string, string>>;

const prefixed = (prefix: string, aliases: Names, classes: readonly string[] = []): Names =>
  Object.fromEntries([
    ...Object.entries(aliases).map(([alias, name]) => [alias, prefix + name] as const),
    ...classes.map(name => [prefix + name, prefix + name] as const),
  ]);

/** Everything that Flume 1.11 knows by name. The alias `kafka` is ours: Flume has class names only. */
export const flumeNames = {
  source: prefixed(
    'org.apache.flume.',
    {
      avro: 'source.AvroSource',
      exec: 'source.ExecSource',
      http: 'source.http.HTTPSource',
      jms: 'source.jms.JMSSource',
      kafka: 'source.kafka.KafkaSource',
      multiport_syslogtcp: 'source.MultiportSyslogTCPSource',
      netcat: 'source.NetcatSource',
      netcatudp: 'source.NetcatUdpSource',
      seq: 'source.SequenceGeneratorSource',
      spooldir: 'source.SpoolDirectorySource',
      syslogtcp: 'source.SyslogTcpSource',
      syslogudp: 'source.SyslogUDPSource',
      taildir: 'source.taildir.TaildirSource',
      thrift: 'source.ThriftSource',
    },
    [
      'agent.embedded.EmbeddedSource',
      'source.StressSource',
      'source.avroLegacy.AvroLegacySource',
      'source.scribe.ScribeSource',
      'source.thriftLegacy.ThriftLegacySource',
      'source.twitter.TwitterSource',
    ],
  ),
  channel: prefixed(
    'org.apache.flume.channel.',
    {
      file: 'file.FileChannel',
      jdbc: 'jdbc.JdbcChannel',
      kafka: 'kafka.KafkaChannel',
      memory: 'MemoryChannel',
      spillablememory: 'SpillableMemoryChannel',
    },
    ['PseudoTxnMemoryChannel'],
  ),
  sink: prefixed(
    'org.apache.flume.sink.',
    {
      asynchbase: 'hbase.AsyncHBaseSink',
      avro: 'AvroSink',
      elasticsearch: 'elasticsearch.ElasticSearchSink',
      file_roll: 'RollingFileSink',
      hbase: 'hbase.HBaseSink',
      hbase2: 'hbase2.HBase2Sink',
      hdfs: 'hdfs.HDFSEventSink',
      hive: 'hive.HiveSink',
      http: 'http.HttpSink',
      irc: 'irc.IRCSink',
      kafka: 'kafka.KafkaSink',
      logger: 'LoggerSink',
      morphline_solr: 'solr.morphline.MorphlineSolrSink',
      null: 'NullSink',
      thrift: 'ThriftSink',
    },
    ['kite.DatasetSink', 'kudu.KuduSink'],
  ),
  'channel selector': prefixed('org.apache.flume.channel.', {
    load_balancing: 'LoadBalancingChannelSelector',
    multiplexing: 'MultiplexingChannelSelector',
    replicating: 'ReplicatingChannelSelector',
  }),
  'sink processor': prefixed('org.apache.flume.sink.', {
    default: 'DefaultSinkProcessor',
    failover: 'FailoverSinkProcessor',
    load_balance: 'LoadBalancingSinkProcessor',
  }),
  interceptor: prefixed(
    'org.apache.flume.',
    {
      host: 'interceptor.HostInterceptor$Builder',
      regex_extractor: 'interceptor.RegexExtractorInterceptor$Builder',
      regex_filter: 'interceptor.RegexFilteringInterceptor$Builder',
      remove_header: 'interceptor.RemoveHeaderInterceptor$Builder',
      search_replace: 'interceptor.SearchAndReplaceInterceptor$Builder',
      static: 'interceptor.StaticInterceptor$Builder',
      timestamp: 'interceptor.TimestampInterceptor$Builder',
    },
    ['sink.solr.morphline.MorphlineInterceptor$Builder', 'sink.solr.morphline.UUIDInterceptor$Builder'],
  ),
  'config filter': prefixed('org.apache.flume.configfilter.', {
    env: 'EnvironmentVariableConfigFilter',
    external: 'ExternalProcessConfigFilter',
    hadoop: 'HadoopCredentialStoreConfigFilter',
  }),
} as const satisfies Record<string, Names>;

export type NamedKind = keyof typeof flumeNames;

/** The name under which a type is registered: aliases match in any case, class names exactly. */
export const findType = (kind: NamedKind, type: string, registered: readonly string[] = []): string | undefined => {
  const lower = type.toLowerCase();
  const names = Object.entries(flumeNames[kind]);
  return (
    [...registered, ...names.map(([name]) => name)].find(
      name => name === type || (!name.includes('.') && name === lower),
    ) ?? names.find(([, className]) => className === type)?.[0]
  );
};

/** Writes down why a type cannot be used: not built in, Java code, or unknown. */
export const reportType = (
  kind: NamedKind,
  entry: Entry,
  problems: Problems,
  registered: readonly string[] = [],
  advice?: string,
): void => {
  const type = entry.value;
  const names: Names = flumeNames[kind];
  const known = findType(kind, type);
  if (known !== undefined) {
    const className = names[known] === type ? '' : ` (${names[known] ?? ''})`;
    problems.error(entry.place(), `the ${kind} ${type}${className} is not built in yet`, {
      code: 'MR_NOT_BUILT_IN',
      ...(registered.length > 0 && { expected: oneOf(registered) }),
      ...(advice !== undefined && { advice }),
    });
    return;
  }
  const part =
    type.length < 4
      ? undefined
      : Object.keys(names).find(n => (names[n] ?? '').toLowerCase().includes(type.toLowerCase()));
  const suggestion = nearest(type, [...registered, ...Object.keys(names), ...Object.values(names)]) ?? part;
  if (suggestion === undefined && type.includes('.') && !type.startsWith('org.apache.flume.')) {
    problems.error(entry.place(), `the ${kind} ${type} is a Java class`, {
      code: 'MR_NOT_BUILT_IN',
      advice: 'Java code cannot run here; docs/writing-components.md shows how to write a component.',
    });
    return;
  }
  problems.error(entry.place(), `there is no ${kind} ${type}`, {
    ...(registered.length > 0 && { expected: oneOf(registered) }),
    ...(suggestion !== undefined && { suggestion }),
  });
};
