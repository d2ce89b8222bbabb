#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What upstreams say about their own addresses, as the client gets to see it. In what is expected
# and said, A stands for the upstream's host and port, C for the client's Host, S for the client's
# scheme.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

# Nothing of this depends on whether a process or a thread waits: prefork stands for both.
without_lanes qw(worker);

# One case is [path, field, value, expected]; expected undef: unchanged.
sub mapped {
    my ($t, $lines, @cases) = @_;
    my @upstreams = ref $t eq 'ARRAY' ? splice @$t, 1 : ();
    $t = $t->[0] if @upstreams;
    my $up = $upstreams[0] // $t->upstream;
    my $authority = $up->path ? 'localhost' : '127.0.0.1:' . $up->port;
    my $fill = sub { return $_[0] =~ s/\bA\b/$authority/gr };
    my @answers = map { [$_->[1], $fill->($_->[2])] } @cases;
    $up->on_request(sub {
        my ($n) = $_[0]->target =~ /case=(\d+)/;
        return ['302 Found', [@{ $answers[$n] }], 'moved'];
    });
    my $url = $up->url;
    $t->config(map { s/\bUP\b/$url/gr } @$lines);
    $t->config($t->rule_for_the_rest) if !grep { m{^RProxyPass / } } @$lines;
    $t->start;
    my ($scheme, $host) = ($t->scheme, $t->host);
    my $client = $t->client;
    for my $n (0 .. $#cases) {
        my ($path, $field, $value, $expected) = @{ $cases[$n] };
        $client = $t->client if !$t->is_h2 && defined $client->closed;
        my $response = $client->get("$path?case=$n");
        $expected = $fill->($expected // $value) =~ s/\bC\b/$host/gr =~ s{\bS://}{$scheme://}gr;
        local $Test::Builder::Level = $Test::Builder::Level + 1;
        is($response->header($field), $expected, "$field: $value");
    }
    return $up;
}

my @app = ('MaxKeepAliveRequests 0', 'RProxyPass /app UP/base');

behaviour 'Location: absolute, scheme-relative and path-only', sub {
    my ($t) = @_;
    mapped($t, \@app, map { ['/app/x', 'Location', @$_] }
        ['http://A/base/x?q#f', 'S://C/app/x?q#f'], ['http://A/base', 'S://C/app'],
        ['http://A/base/', 'S://C/app/'], ['http://A/base?q', 'S://C/app?q'],
        ['HTTP://A/base/x', 'S://C/app/x'], ['//A/base/x', '//C/app/x'],
        ['/base/x', '/app/x'], ['/base', '/app'], ['/base/', '/app/'], ['/base?q', '/app?q'],
        ['/base/a%2Fb/../c', '/app/a%2Fb/../c'], ['http://www.example.test/base/x', 'S://C/app/x'],
        ['/based'], ['/other'], ['http://A/based/x'], ['http://A/other'], ['https://A/base/x'],
        ['http://other.test/base/x'], ['https://other.test/'], ['//other.test/base/x'], ['x/y'],
        ['../base/x'], ['?q'], ['#f'], [''], ['mailto:base@A'], ['ftp://A/base/x'],
        ['http://A.other.test/base/x'], ['http://other.test@A/base/x'], ['http:///base/x'],
    );
};

behaviour 'Content-Location, Destination, Refresh and Link', sub {
    my ($t) = @_;
    mapped($t, \@app, map { ['/app/x', @$_] }
        ['Content-Location', '/base/x', '/app/x'],
        ['Content-Location', 'http://A/base/x', 'S://C/app/x'],
        ['Destination', 'http://A/base/x', 'S://C/app/x'], ['Destination', '/base/x', '/app/x'],
        ['Refresh', '5; url=/base/x', '5; url=/app/x'], ['Refresh', '5'],
        ['Refresh', '0;URL="http://A/base/x"', '0;URL="S://C/app/x"'],
        ['Refresh', '0;url=https://other.test/base/'],
        ['Link', '</base/x>; rel="next"', '</app/x>; rel="next"'],
        ['Link', '</base/x,y>; title="a, </base/z>", <http://A/base/y>; rel=prev, <x>; rel=a',
            '</app/x,y>; title="a, </base/z>", <S://C/app/y>; rel=prev, <x>; rel=a'],
        ['Link', '<https://other.test/base/>; rel=x'],
        ['X-Location', 'http://A/base/x'], ['ETag', '"/base/x"'],
    );
};

behaviour 'cookies: Path and Domain', sub {
    my ($t) = @_;
    mapped($t, \@app, map { ['/app/x', 'Set-Cookie', @$_] }
        ['a=1; Path=/base; HttpOnly', 'a=1; Path=/app; HttpOnly'],
        ['a=1; path=/base/', 'a=1; path=/app/'], ['a=1; Path=/base/x', 'a=1; Path=/app/x'],
        ['a=1;Path=/base;Secure', 'a=1;Path=/app;Secure'], ['a=1; Path=/based'],
        ['a=/base; Path=/base', 'a=/base; Path=/app'], ['a="Path=/base"'], ['a=1'], ['a=1; Path='],
        ['a=1; Domain=127.0.0.1; Path=/base', 'a=1; Path=/app'],
        ['a=1; Domain=www.example.test'], ['a=1; Domain=.example.test'],
        ['a=1; Domain=other.test'], ['__Host-a=1; Path=/; Secure'], ['Path=/base'],
        ['a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/base; SameSite=None',
            'a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/app; SameSite=None'],
    );
};

behaviour 'a base of / gets the whole upstream under the prefix', sub {
    my ($t) = @_;
    mapped($t, ['RProxyPass /app/ UP/', 'RProxyPass /bare UP'],
        ['/app/x', 'Location', '/x', '/app/x'], ['/app/x', 'Location', '/', '/app/'],
        ['/app/x', 'Location', 'http://A', 'S://C/app/'],
        ['/app/x', 'Location', 'http://A/', 'S://C/app/'],
        ['/app/x', 'Location', 'http://A/x', 'S://C/app/x'],
        ['/app/x', 'Location', 'http://A?q', 'S://C/app/?q'],
        ['/bare/x', 'Location', '/x', '/bare/x'], ['/bare', 'Location', '/', '/bare/'],
        ['/app/x', 'Set-Cookie', 'a=1; Path=/x', 'a=1; Path=/app/x'],
        ['/app/x', 'Set-Cookie', '__Host-a=1; Path=/; Secure'],
    );
};

behaviour 'a prefix of / takes the base off', sub {
    my ($t) = @_;
    mapped($t, ['RProxyPass / UP/base'],
        ['/x', 'Location', '/base/x', '/x'], ['/x', 'Location', '/base', '/'],
        ['/x', 'Location', 'http://A/base', 'S://C/'],
        ['/x', 'Location', '/base//evil.test', '/evil.test'],
        ['/x', 'Location', '/other'], ['/x', 'Set-Cookie', 'a=1; Path=/base', 'a=1; Path=/'],
        ['/x', 'Set-Cookie', 'a=1; Path=/base/x', 'a=1; Path=/x'],
    );
};

behaviour 'where prefix and base are the same only the address changes', sub {
    my ($t) = @_;
    mapped($t, ['RProxyPass / UP/'],
        ['/x', 'Location', '/x'], ['/x', 'Location', 'http://A/x', 'S://C/x'],
        ['/x', 'Location', 'http://other.test/x'], ['/x', 'Set-Cookie', 'a=1; Path=/'],
        ['/x', 'Set-Cookie', 'a=1; Domain=127.0.0.1', 'a=1'],
    );
};

behaviour 'regular expressions: addresses change, paths stay', sub {
    my ($t) = @_;
    mapped($t, ['RProxyPassMatch ^/re/(.*)$ UP/base/$1'],
        ['/re/x', 'Location', 'http://A/base/x', 'S://C/base/x'],
        ['/re/x', 'Location', '/base/x'], ['/re/x', 'Set-Cookie', 'a=1; Path=/base'],
    );
};

# A guard: the engine has no HTTP/2.
behaviour 'the client\'s port, and RProxyPreserveHost off', except => ['engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream;
    my $authority = '127.0.0.1:' . $up->port;
    $up->on_request(sub {
        my ($request) = @_;
        return [302, [Location => 'http://' . $request->header('Host') . '/base/x']];
    });
    $t->config('RProxyPass /app ' . $up->url . '/base',
        '<Location /app/off>', 'RProxyPreserveHost off',
        '</Location>');
    $t->start;
    my $name = $t->host . ':' . $t->port;
    for my $path ('/app/on', '/app/off') {
        my $response = $t->request('GET', $path, { host => $name });
        is($response->header('Location'), $t->scheme . "://$name/app/x", $path);
        is($up->request->header('Host'), $path =~ /off/ ? $authority : $name);
    }
};

# A guard: the engine has no HTTP/2.
behaviour 'RProxyReverse, RProxyCookieDomain and RProxyCookiePath add to that',
    except => ['engine-h2'], sub {
    my ($t) = @_;
    mapped($t, [@app, 'RProxyReverse http://internal.test:8080/ /app/',
        'RProxyReverse /legacy /new',
            'RProxyReverse https://login.test/ https://sso.example.test/auth/',
            'RProxyCookieDomain internal.test example.test', 'RProxyCookiePath /legacy /new',
            '<Location /app/inner>', 'RProxyReverse /legacy /inner', '</Location>'],
        ['/app/x', 'Location', 'http://internal.test:8080/x', 'S://C/app/x'],
        ['/app/x', 'Location', 'http://internal.test/x'],
        ['/app/x', 'Location', '/legacy/x', '/new/x'],
        ['/app/x', 'Location', 'http://A/legacy/x', 'S://C/new/x'],
        ['/app/x', 'Location', 'http://other.test/legacy/x'],
        ['/app/x', 'Location', 'https://login.test/in?q', 'https://sso.example.test/auth/in?q'],
        ['/app/x', 'Location', '/base/x', '/app/x'],
        ['/app/inner/x', 'Location', '/legacy/x', '/inner/x'],
        ['/app/inner/x', 'Location', 'http://internal.test:8080/x', 'S://C/app/x'],
        ['/app/x', 'Refresh', '1; url=/legacy/x', '1; url=/new/x'],
        ['/app/x', 'Set-Cookie', 'a=1; Domain=internal.test', 'a=1; Domain=example.test'],
        ['/app/x', 'Set-Cookie', 'a=1; Domain=x.internal.test'],
        ['/app/x', 'Set-Cookie', 'a=1; Path=/legacy/x; Domain=.internal.test; Secure',
            'a=1; Path=/new/x; Domain=example.test; Secure'],
        ['/app/x', 'Set-Cookie', 'a=1; Path=/base', 'a=1; Path=/app'],
    );
};

behaviour 'an upstream over TLS is https',
    lanes => ['event', 'tls', 'engine', 'engine-tls', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream(tls => 1);
    mapped([$t, $up], ['RProxyPass /app UP/base', 'RProxyTLS ca=' . $t->certs->ca_file],
        ['/app/x', 'Location', 'https://A/base/x', 'S://C/app/x'],
        ['/app/x', 'Location', 'http://A/base/x'], ['/app/x', 'Location', '/base/x', '/app/x'],
    );
};

behaviour 'an upstream behind a socket has a name', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = $t->upstream(unix => 1);
    mapped([$t, $up], ['RProxyPass /app UP/base'],
        ['/app/x', 'Location', 'http://localhost/base/x', 'S://C/app/x'],
        ['/app/x', 'Location', '/base/x', '/app/x'],
    );
};

# CVE-2026-34356: a replacement longer than the original, many attributes, hostile lengths.
behaviour 'long and hostile values are mapped in full or left alone', sub {
    my ($t) = @_;
    my $prefix = '/' . 'long' x 200;
    mapped($t, ['MaxKeepAliveRequests 0', "RProxyPass $prefix UP/b"],
        ["$prefix/x", 'Set-Cookie', 'a=1' . '; Path=/b' x 20, 'a=1' . "; Path=$prefix" x 20],
        ["$prefix/x", 'Set-Cookie', 'a=' . 'x' x 20_000 . '; Path=/b', 'a=' . 'x' x 20_000
            . "; Path=$prefix"],
        ["$prefix/x", 'Link', join(', ', ('</b/x>; rel=a') x 10),
            join(', ', ("<$prefix/x>; rel=a") x 10)],
        ["$prefix/x", 'Location', '/b/' . 'y' x 20_000, "$prefix/" . 'y' x 20_000],
        ["$prefix/x", 'Set-Cookie', ';' x 5_000], ["$prefix/x", 'Set-Cookie', '=' x 5_000],
        ["$prefix/x", 'Link', '<' x 5_000], ["$prefix/x", 'Link', '"<,' x 1_000],
        ["$prefix/x", 'Refresh', '0' x 5_000 . ';'],
        ["$prefix/x", 'Refresh', "0;url='/b", "0;url='$prefix"],
        ["$prefix/x", 'Set-Cookie', 'a; Path; Domain; Path'], ["$prefix/x", 'Location', '//'],
        ["$prefix/x", 'Location', 'http://'], ["$prefix/x", 'Location', 'http:'],
    );
};

done_testing;
