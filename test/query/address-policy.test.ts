import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { allowEntryProblem, createAddressPolicy } from '../../src/query/address-policy.ts';
import { outboundUrlProblem, parseOutboundUrl } from '../../src/query/outbound-url.ts';
import { policyOptions } from '../support/push-world.ts';

const METADATA = ['169.254.169.254', '100.100.100.200', '168.63.129.16', '192.0.0.192'] as const;

/** Ways in which an IPv6 address carries an IPv4 address. */
function embeddings(address: string): Record<string, string> {
  const octets = address.split('.').map(Number);
  const hex = (...at: number[]): string => at.map((one) => (octets[one] ?? 0).toString(16).padStart(2, '0')).join('');
  const inverted = octets.map((octet) => (octet ^ 0xff).toString(16).padStart(2, '0'));
  return {
    mapped: `::ffff:${address}`,
    'mapped in hex': `::ffff:${hex(0, 1)}:${hex(2, 3)}`,
    'mapped in full': `0:0:0:0:0:FFFF:${hex(0, 1)}:${hex(2, 3)}`,
    compatible: `::${hex(0, 1)}:${hex(2, 3)}`,
    translated: `::ffff:0:${hex(0, 1)}:${hex(2, 3)}`,
    NAT64: `64:ff9b::${address}`,
    'local NAT64 of 96 bits': `64:ff9b:1::${hex(0, 1)}:${hex(2, 3)}`,
    'local NAT64 of 48 bits': `64:ff9b:1:${hex(0, 1)}:00${hex(2)}:${hex(3)}00::`,
    'local NAT64 of 56 bits': `64:ff9b:1:ab${hex(0)}:00${hex(1)}:${hex(2, 3)}::`,
    'local NAT64 of 64 bits': `64:ff9b:1:abcd:00${hex(0)}:${hex(1, 2)}:${hex(3)}00:0`,
    '6to4': `2002:${hex(0, 1)}:${hex(2, 3)}::1`,
    'Teredo server': `2001:0:${hex(0, 1)}:${hex(2, 3)}:0:ffff:f7f7:f7f7`,
    'Teredo client': `2001:0:0808:0808:0:ffff:${inverted.slice(0, 2).join('')}:${inverted.slice(2).join('')}`,
    ISATAP: `2606:4700::5efe:${hex(0, 1)}:${hex(2, 3)}`,
  };
}

const open = createAddressPolicy(policyOptions({ allow: ['0.0.0.0/0', '::/0', 'metadata.example'] }));

test('refuses the metadata addresses in every IPv6 embedding, even if allow-listed', () => {
  for (const address of METADATA) {
    for (const [form, spelling] of Object.entries({ plain: address, ...embeddings(address) })) {
      assert.notEqual(open.addressProblem('metadata.example', spelling, 80), null, `${form}: ${spelling}`);
      assert.notEqual(open.hostProblem(spelling, 80), null, `${form}: ${spelling}`);
    }
  }
});

test('a public address passes in the same embeddings, so the refusals above are for their address', () => {
  for (const [form, spelling] of Object.entries({ plain: '8.8.4.4', ...embeddings('8.8.4.4') })) {
    assert.equal(open.addressProblem('x', spelling, 80), null, `${form}: ${spelling}`);
  }
});

test('refuses a forbidden literal in every spelling that a URL takes', () => {
  for (const host of ['169.254.169.254', '169.254.169.254.', '0xa9fea9fe', '0xA9.0xFE.0xA9.0xFE', '2852039166', '0251.0376.0251.0376', '169.254.43518', '169.16689662',
    '[::ffff:169.254.169.254]', '[::FFFF:A9FE:A9FE]', '１６９.254.169.254', '169。254。169。254', '0', '0.0.0.0', '[::]', '::', 'fe80::1%eth0', '[fe80::1]', '224.0.0.1', '[ff02::1]',
    '255.255.255.255', '240.0.0.1', '[fd00:ec2::254]', '[fd00:ec2::23]', '[fd20:ce::254]', '[fd00:c1::a9fe:a9fe]', '[fd00:0ec2:0:0:0:0:0:254]']) {
    assert.notEqual(open.hostProblem(host, 80), null, host);
  }
  for (const host of ['appservice', 'appservice.example.org', 'localhost', '127.0.0.1', '[::1]', '10.0.0.1', '192.168.1.7', '[fd00::1]', '8.8.8.8', 'a9fea9fe', '1e100.net', 'xn--bcher-kva.example']) {
    assert.equal(open.hostProblem(host, 80), null, host);
  }
  for (const host of ['', 'a b', 'x/y', 'x?y', 'x#y', 'u@h', 'h:80', '[::1', '.']) assert.notEqual(open.hostProblem(host, 80), null, host);
});

test('every address of the refused ranges is refused, whatever its form', () => {
  const last = fc.integer({ min: 0, max: 255 });
  const refused = fc.oneof(
    fc.tuple(fc.constant(0), last, last, last),
    fc.tuple(fc.constant(169), fc.constant(254), last, last),
    fc.tuple(fc.integer({ min: 224, max: 255 }), last, last, last),
  );
  fc.assert(
    fc.property(refused, fc.nat({ max: 8 }), (octets, at) => {
      const address = octets.join('.');
      // The compatible form of 0/8 holds :: and ::1, which have meanings of their own.
      const forms = [address, ...Object.entries(embeddings(address)).flatMap(([form, text]) => (octets[0] === 0 && /compatible|local/.test(form) ? [] : [text]))];
      assert.notEqual(open.addressProblem('x', forms[at % forms.length] ?? address, 443), null);
    }),
  );
});

test('the default policy lets private and loopback addresses pass, strict refuses them unless listed', () => {
  const lax = createAddressPolicy(policyOptions());
  const strict = createAddressPolicy(policyOptions({ mode: 'strict' }));
  for (const address of ['127.0.0.1', '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.0.1', '100.64.0.1', '198.18.0.1', '::1', 'fd12::1', 'fec0::1', '::ffff:10.0.0.1', '64:ff9b::10.0.0.1', '2002:0a00:0001::1']) {
    assert.equal(lax.addressProblem('x', address, 80), null, address);
    assert.match(strict.addressProblem('x', address, 80) ?? '', /ROUTER_OUTBOUND_ALLOW/, address);
  }
  for (const address of ['100::1', '100:0:0:1::1', '2001:2::1', '2001:10::1', '2001:db8::1', '3fff::1', '5f00::1', '4000::1', '64:ff9b:1::808:404', '::ffff:0:808:404', '::808:404']) {
    assert.match(strict.addressProblem('x', address, 80) ?? '', /ROUTER_OUTBOUND_ALLOW/, address);
  }
  for (const address of ['8.8.8.8', '172.32.0.1', '2606:4700::1', '::ffff:8.8.4.4', '64:ff9b::8.8.4.4', '2002:0808:0404::1']) assert.equal(strict.addressProblem('x', address, 80), null, address);
  assert.equal(lax.unixProblem('/run/as.sock'), null);
  assert.notEqual(lax.unixProblem('run/as.sock'), null);
  assert.match(strict.unixProblem('/run/as.sock') ?? '', /ROUTER_OUTBOUND_ALLOW/);
});

test('strict lets pass what the list names: CIDRs, addresses, hosts, sockets, and nothing beside them', () => {
  const policy = createAddressPolicy(policyOptions({ mode: 'strict', allow: ['10.1.0.0/16', '192.168.0.7', '[fd00::7]', 'Appservice.Internal.', 'unix:/run/as.sock'] }));
  for (const [host, address] of [['x', '10.1.2.3'], ['x', '::ffff:10.1.2.3'], ['x', '192.168.0.7'], ['x', 'fd00::7'], ['appservice.internal', '10.9.9.9'], ['APPSERVICE.internal.', '127.0.0.1']] as const) {
    assert.equal(policy.addressProblem(host, address, 80), null, `${host} ${address}`);
  }
  for (const [host, address] of [['x', '10.2.0.1'], ['x', '192.168.0.8'], ['sub.appservice.internal', '10.9.9.9'], ['appservice.internal', '169.254.169.254']] as const) {
    assert.notEqual(policy.addressProblem(host, address, 80), null, `${host} ${address}`);
  }
  assert.equal(policy.unixProblem('/run/as.sock'), null);
  assert.notEqual(policy.unixProblem('/run/as.sock2'), null);
});

test('refuses port 0', () => {
  assert.notEqual(open.addressProblem('x', '8.8.8.8', 0), null);
  assert.notEqual(open.hostProblem('example.org', 0), null);
});

test("refuses the router's own listeners, and only those", () => {
  const one = createAddressPolicy(policyOptions({ ownListeners: () => [{ address: '127.0.0.1', port: 8080 }] }));
  assert.notEqual(one.addressProblem('x', '127.0.0.1', 8080), null);
  assert.notEqual(one.addressProblem('x', '::ffff:127.0.0.1', 8080), null);
  assert.equal(one.addressProblem('x', '127.0.0.1', 8081), null);
  assert.equal(one.addressProblem('x', '127.0.0.2', 8080), null);
  for (const address of ['0.0.0.0', '::']) {
    const all = createAddressPolicy(policyOptions({ allow: ['::/0'], ownListeners: () => [{ address, port: 8080 }], localAddresses: () => ['10.0.0.5', 'fd00::5'] }));
    for (const own of ['127.0.0.1', '127.8.8.8', '::1', '10.0.0.5', '::ffff:10.0.0.5', 'fd00::5']) assert.notEqual(all.addressProblem('x', own, 8080), null, own);
    for (const other of ['10.0.0.6', 'fd00::6']) assert.equal(all.addressProblem('x', other, 8080), null, other);
    assert.equal(all.addressProblem('x', '10.0.0.5', 8081), null);
  }
});

test('an answer that is no address is refused', () => {
  for (const text of ['', 'localhost', '1.2.3.4.5', 'x']) assert.notEqual(open.addressProblem('x', text, 80), null, text);
});

test('a list entry that cannot be used is told as such', () => {
  for (const entry of ['10.0.0.0/8', '::/0', '10.0.0.1', '[::1]', 'host.example', 'unix:/run/x']) assert.equal(allowEntryProblem(entry), null, entry);
  for (const entry of ['', '10.0.0.0/33', 'a b', 'unix:run', 'http://x/', 'x:80']) {
    assert.notEqual(allowEntryProblem(entry), null, entry);
    assert.throws(() => createAddressPolicy(policyOptions({ allow: [entry] })));
  }
});

test('judges a url at registration', () => {
  const policy = createAddressPolicy(policyOptions({ ownListeners: () => [{ address: '127.0.0.1', port: 8080 }] }));
  for (const url of ['http://localhost:9000', 'https://appservice.example/path/', 'http://127.0.0.1:9000', 'http://[::1]:9000', 'unix:/run/as.sock', 'unix:///run/as.sock']) {
    assert.equal(outboundUrlProblem(url, policy), null, url);
  }
  for (const url of ['', 'appservice:9000', 'ftp://x', 'http://', 'http://user@x/', 'http://:pw@x/', 'http://x/?', 'http://x/#', 'http://x/?a=b', 'http://x:0', 'http://0xa9fea9fe/latest', 'http://[::ffff:a9fe:a9fe]/', 'http://127.0.0.1:8080/',
    'unix:run/as.sock', 'unix:', 'javascript:alert(1)']) {
    assert.match(outboundUrlProblem(url, policy) ?? '', /^[A-Z].*\.$/, url);
  }
  assert.deepEqual(parseOutboundUrl('https://[::1]/a/b//'), { origin: 'https://[::1]', secure: true, host: '::1', port: 443, unixPath: null, basePath: '/a/b' });
});
