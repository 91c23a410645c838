/**
 * Which addresses the router may connect to (contract section 6, "Outbound addresses"). Pure.
 *
 * An operator who may put a registration chooses where this process sends requests. Some places are therefore refused
 * whatever the configuration says: they are nobody's appservice, and what answers there (a cloud's metadata service, the
 * router itself) trusts its caller. An IPv6 address that carries an IPv4 address in it is judged by both.
 */
import ipaddr from 'ipaddr.js';

type Address = ipaddr.IPv4 | ipaddr.IPv6;
type Network = readonly [Address, number];

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

export interface AddressPolicyOptions {
  /** `strict` refuses private ranges and unix sockets unless `allow` lists them. */
  readonly mode: 'default' | 'strict';
  /** CIDRs, addresses, host names and `unix:` paths. Without effect on what is always refused. */
  readonly allow: readonly string[];
  /** What this router listens on, asked at each judgement: an ephemeral port is known only later. */
  readonly ownListeners: () => readonly Endpoint[];
  /** Addresses of this machine's interfaces; they count where the router listens on all of them. */
  readonly localAddresses: () => readonly string[];
}

/** Each answer is null, or the problem as a sentence. */
export interface AddressPolicy {
  /** Of an address that `host` came to, which may be the host itself. */
  addressProblem(host: string, address: string, port: number): string | null;
  /** What is known of a host before it is resolved: a literal is judged like an address, a name passes. */
  hostProblem(host: string, port: number): string | null;
  unixProblem(path: string): string | null;
}

const ALWAYS_REFUSED: readonly (readonly [string, string])[] = [
  ['0.0.0.0/8', 'an unspecified address'],
  ['169.254.0.0/16', 'a link-local address'],
  ['224.0.0.0/4', 'a multicast address'],
  ['255.255.255.255/32', 'a broadcast address'],
  ['240.0.0.0/4', 'a reserved address'],
  ['100.100.100.200/32', 'a cloud metadata address'],
  ['168.63.129.16/32', 'a cloud metadata address'],
  ['192.0.0.192/32', 'a cloud metadata address'],
  ['::/128', 'an unspecified address'],
  ['fe80::/10', 'a link-local address'],
  ['ff00::/8', 'a multicast address'],
  ['fd00:ec2::254/128', 'a cloud metadata address'],
  ['fd00:ec2::23/128', 'a cloud metadata address'],
  ['fd00:c1::a9fe:a9fe/128', 'a cloud metadata address'],
  ['fd20:ce::254/128', 'a cloud metadata address'],
];

const PRIVATE: readonly string[] = [
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '2001:2::/48',
  '2001:10::/28',
  '2001:db8::/32',
  '3fff::/20',
];

/** Outside of these no IPv6 address is public; what carries an IPv4 address is judged by that too. */
const PUBLIC_IPV6: readonly string[] = ['2000::/3', '64:ff9b::/96', '::ffff:0:0/96'];

const refusedNetworks = ALWAYS_REFUSED.map(([cidr, what]) => ({ network: networkOf(cidr), what }));
const privateNetworks = PRIVATE.map(networkOf);
const publicIPv6Networks = PUBLIC_IPV6.map(networkOf);

const PORT_ZERO = 'Port 0 is no port to connect to; write the port that the appservice listens on.';

export function createAddressPolicy(options: AddressPolicyOptions): AddressPolicy {
  const allow = readAllowList(options.allow);
  const addressProblem = (host: string, text: string, port: number): string | null => {
    if (port === 0) return PORT_ZERO;
    const address = parseAddress(text);
    if (address === null) return 'The host name came to something that is no IP address; check its DNS records.';
    const spellings = spellingsOf(address);
    const refused = refusal(spellings);
    if (refused !== null) return refused;
    if (isOwnListener(spellings, port, options)) {
      return 'This is an address the router itself listens on; write the address of the appservice.';
    }
    if (options.mode === 'default' || allow.hosts.has(nameOf(host)) || spellings.some((one) => isIn(one, allow.networks))) return null;
    if (!spellings.some(isPrivate)) return null;
    return 'This is a private address, which the strict outbound policy refuses; add it to ROUTER_OUTBOUND_ALLOW if the appservice lives there.';
  };
  return {
    addressProblem,
    hostProblem(host, port) {
      if (port === 0) return PORT_ZERO;
      const literal = literalOf(host);
      if (literal.kind === 'invalid') return NO_HOST;
      return literal.kind === 'name' ? null : addressProblem(host, literal.address, port);
    },
    unixProblem(path) {
      if (!path.startsWith('/')) return 'The path of a unix socket must be absolute, such as unix:/run/appservice.sock.';
      if (options.mode === 'default' || allow.unixPaths.has(path)) return null;
      return 'This is a unix socket, which the strict outbound policy refuses; add it to ROUTER_OUTBOUND_ALLOW as unix: and its path.';
    },
  };
}

const NO_HOST = 'This is no valid host name or address.';

/** Why an entry of the allow list cannot be used; null if it can. */
export function allowEntryProblem(entry: string): string | null {
  if (entry.startsWith('unix:')) return entry.startsWith('unix:/') ? null : `${entry}: the path of a unix socket must be absolute.`;
  if (entry.includes('/')) return ipaddr.isValidCIDR(entry) ? null : `${entry}: this is no CIDR, such as 10.0.0.0/8.`;
  return literalOf(entry).kind === 'invalid' ? `${entry}: this is no host name, address, CIDR or unix: path.` : null;
}

interface AllowList {
  readonly networks: readonly Network[];
  readonly hosts: ReadonlySet<string>;
  readonly unixPaths: ReadonlySet<string>;
}

function readAllowList(entries: readonly string[]): AllowList {
  const networks: Network[] = [];
  const hosts = new Set<string>();
  const unixPaths = new Set<string>();
  for (const entry of entries) {
    const problem = allowEntryProblem(entry);
    if (problem !== null) throw new Error(problem);
    if (entry.startsWith('unix:')) unixPaths.add(entry.slice('unix:'.length).replace(/^\/\/+/, '/'));
    else if (entry.includes('/')) networks.push(networkOf(entry));
    else {
      const literal = literalOf(entry);
      const address = literal.kind === 'address' ? parseAddress(literal.address) : null;
      if (address === null) hosts.add(nameOf(entry));
      else networks.push([address, address.kind() === 'ipv4' ? 32 : 128]);
    }
  }
  return { networks, hosts, unixPaths };
}

function networkOf(cidr: string): Network {
  return ipaddr.parseCIDR(cidr);
}

function parseAddress(text: string): Address | null {
  return ipaddr.isValid(text) ? ipaddr.parse(text) : null;
}

type Literal = { readonly kind: 'invalid' } | { readonly kind: 'name' } | { readonly kind: 'address'; readonly address: string };

/** Reads a host the way a URL does, so that each spelling of an address is seen as that address. */
function literalOf(host: string): Literal {
  const bare = /^\[(.*)\]$/.exec(host)?.[1] ?? host;
  if (ipaddr.IPv6.isValid(bare)) return { kind: 'address', address: bare };
  const url = /[:/?#@\\]/.test(host) ? null : URL.parse(`http://${host}/`);
  if (url === null) return { kind: 'invalid' };
  const name = nameOf(url.hostname);
  if (name === '') return { kind: 'invalid' };
  return ipaddr.isValid(name) ? { kind: 'address', address: name } : { kind: 'name' };
}

function nameOf(host: string): string {
  return host.toLowerCase().replace(/\.$/, '');
}

/** The address itself and every IPv4 address that it carries. A mapped address is plain IPv4 to the kernel. */
function spellingsOf(address: Address): readonly Address[] {
  return isIPv4(address) ? [address] : [address, ...embedded(address)];
}

function isIPv4(address: Address): address is ipaddr.IPv4 {
  return address.kind() === 'ipv4';
}

function embedded(address: ipaddr.IPv6): ipaddr.IPv4[] {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = address.parts;
  const leadIsZero = a === 0 && b === 0 && c === 0 && d === 0;
  const found: ipaddr.IPv4[] = [];
  // ::a.b.c.d (compatible; ::1 and :: are no such), ::ffff:a.b.c.d (mapped), ::ffff:0:a.b.c.d (translated)
  if (leadIsZero && e === 0 && (f === 0xffff || (f === 0 && g !== 0))) found.push(ipv4(g, h));
  if (leadIsZero && e === 0xffff && f === 0) found.push(ipv4(g, h));
  if (a === 0x64 && b === 0xff9b && c !== 1) found.push(ipv4(g, h));
  if (a === 0x64 && b === 0xff9b && c === 1) {
    // A local NAT64 prefix may be 48, 56, 64 or 96 bits long; the eighth octet is skipped (RFC 6052 section 2.2).
    const octets = [d >> 8, d & 0xff, e & 0xff, f >> 8, f & 0xff, g >> 8, g >> 8, g & 0xff, h >> 8, h & 0xff];
    for (const at of [0, 1, 2, 6]) {
      // A leading zero says that the prefix is not of this length.
      if (octets[at] !== 0) found.push(new ipaddr.IPv4(octets.slice(at, at + 4)));
    }
  }
  if (a === 0x2002) found.push(ipv4(b, c));
  // Teredo: the server in the clear, the client inverted.
  if (a === 0x2001 && b === 0) found.push(ipv4(c, d), ipv4(g ^ 0xffff, h ^ 0xffff));
  // ISATAP interface identifiers
  if ((e & 0xfdff) === 0 && f === 0x5efe) found.push(ipv4(g, h));
  return found;
}

function ipv4(high: number, low: number): ipaddr.IPv4 {
  return new ipaddr.IPv4([high >> 8, high & 0xff, low >> 8, low & 0xff]);
}

function isIn(address: Address, networks: readonly Network[]): boolean {
  return networks.some(([network, bits]) => network.kind() === address.kind() && address.match(network, bits));
}

function isPrivate(address: Address): boolean {
  return isIn(address, privateNetworks) || (!isIPv4(address) && !isIn(address, publicIPv6Networks));
}

function refusal(spellings: readonly Address[]): string | null {
  for (const { network, what } of refusedNetworks) {
    if (spellings.some((one) => isIn(one, [network]))) return `This is ${what}, to which the router never connects; write the address of the appservice.`;
  }
  return null;
}

function isOwnListener(spellings: readonly Address[], port: number, { ownListeners, localAddresses }: AddressPolicyOptions): boolean {
  const targets = new Set(spellings.map((one) => one.toNormalizedString()));
  return ownListeners().some((listener) => {
    if (listener.port !== port) return false;
    const own = parseAddress(listener.address);
    if (own === null) return false;
    if (spellingsOf(own).some((one) => targets.has(one.toNormalizedString()))) return true;
    if (own.range() !== 'unspecified') return false;
    return spellings.some((one) => one.range() === 'loopback') || localAddresses().some((text) => targets.has(parseAddress(text)?.toNormalizedString() ?? ''));
  });
}
