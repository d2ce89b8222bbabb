#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Hostile clients: bytes that two parties could read in two ways are refused with the connection
# closed, and never become two requests at the upstream or a part of its request line.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

my @http1 = (lanes => [qw(event worker prefork engine engine-tls)]);

sub started {
    my ($t, @lines) = @_;
    my $up = $t->upstream;
    $up->on_request(sub {
        my ($request) = @_;
        return [200, ['X-Target' => $request->target], $request->body];
    });
    my $url = $up->url;
    $t->config(map { s/\bUP\b/$url/gr } @lines ? @lines : 'RProxyPass / UP/');
    $t->start;
    return $up;
}

my $host = "Host: www.example.test\r\n";
my $smuggled = "GET /smuggled HTTP/1.1\r\n${host}\r\n";

# Bytes as they are, one connection each: refused, closed, and the upstream saw nothing.
sub refused {
    my ($t, $up, $name, $bytes) = @_;
    my $before = $up->requests;
    my $client = $t->raw_client;
    $client->write($bytes);
    my $answer = $client->read_eof;
    subtest $name => sub {
        like($answer, qr{\AHTTP/1\.1 (?:400|408|413|414|417|431|501|505) |\A\z|\A<!DOCTYPE},
            'refused') or diag($answer);
        my @answers = $answer =~ m{^HTTP/1\.1 }mg;
        cmp_ok(scalar(@answers), '<=', 1, 'one answer, then the connection closes');
        my @seen = $up->requests;
        is(scalar(@seen), $before, 'nothing reached the upstream')
            or diag(map { $_->raw_head } @seen[$before .. $#seen]);
    };
    return;
}

behaviour 'ambiguous lengths are refused', @http1, sub {
    my ($t) = @_;
    my $up = started($t);
    my $te = "Transfer-Encoding: chunked\r\n";
    my $chunked = "4\r\nbody\r\n0\r\n\r\n";
    my @cases = (
        'CL and TE'          => ["Content-Length: 4\r\n$te", "0\r\n\r\n$smuggled"],
        'TE and CL'          => ["${te}Content-Length: 4\r\n", "0\r\n\r\n$smuggled"],
        'CL 0 and TE'        => ["Content-Length: 0\r\n$te", $chunked],
        'TE identity'        => ["Transfer-Encoding: identity\r\nContent-Length: 4\r\n", 'body'],
        'TE gzip'            => ["Transfer-Encoding: gzip\r\n", $chunked],
        'TE gzip, chunked'   => ["Transfer-Encoding: gzip, chunked\r\n", $chunked],
        'TE chunked, gzip'   => ["Transfer-Encoding: chunked, gzip\r\n", $chunked],
        'TE chunked twice'   => ["$te$te", $chunked],
        'TE chunked, chunked' => ["Transfer-Encoding: chunked, chunked\r\n", $chunked],
        'TE xchunked'        => ["Transfer-Encoding: xchunked\r\n", $chunked],
        'TE chunkedx'        => ["Transfer-Encoding: chunkedx\r\n", $chunked],
        'TE chunked;q=1'     => ["Transfer-Encoding: chunked;q=1\r\n", $chunked],
        'TE quoted'          => ["Transfer-Encoding: \"chunked\"\r\n", $chunked],
        'TE comma'           => ["Transfer-Encoding: ,chunked\r\n", $chunked],
        'TE with VT'         => ["Transfer-Encoding: \x0bchunked\r\n", $chunked],
        'TE empty'           => ["Transfer-Encoding:\r\n", $chunked],
        'TE space colon'     => ["Transfer-Encoding : chunked\r\n", $chunked],
        'TE folded behind another' => ["X-A: b\r\n Transfer-Encoding: chunked\r\n$te"
                . "Content-Length: 4\r\n", $chunked],
        'CL twice'           => ["Content-Length: 4\r\nContent-Length: 5\r\n", 'body5'],
        'CL twice, the same' => ["Content-Length: 4\r\nContent-Length: 4\r\n", 'body'],
        'CL list'            => ["Content-Length: 4, 4\r\n", 'body'],
        'CL negative'        => ["Content-Length: -4\r\n", 'body'],
        'CL plus'            => ["Content-Length: +4\r\n", 'body'],
        'CL hexadecimal'     => ["Content-Length: 0x4\r\n", 'body'],
        'CL huge'            => ["Content-Length: 99999999999999999999999\r\n", 'body'],
        'CL wraps'           => ["Content-Length: 18446744073709551620\r\n", 'body'],
        'CL empty'           => ["Content-Length:\r\n", 'body'],
        'CL words'           => ["Content-Length: 4 4\r\n", 'body'],
        'CL decimal point'   => ["Content-Length: 4.0\r\n", 'body'],
        'CL space colon'     => ["Content-Length : 4\r\n", 'body'],
    );
    while (my ($name, $case) = splice @cases, 0, 2) {
        my ($fields, $body) = @$case;
        refused($t, $up, $name, "POST /x HTTP/1.1\r\n$host$fields\r\n$body$smuggled");
    }
    refused($t, $up, 'TE with HTTP/1.0', "POST /x HTTP/1.0\r\n$host$te\r\n$chunked$smuggled");
};

behaviour 'malformed chunks end the request and the connection', @http1, sub {
    my ($t) = @_;
    my $up = started($t);
    my %bad = (
        'no hexadecimal' => "xyz\r\n", 'negative' => "-1\r\nbody",
        'plus' => "+4\r\nbody\r\n0\r\n\r\n",
        'huge' => "ffffffffffffffffff\r\n", 'prefix 0x' => "0x4\r\nbody\r\n0\r\n\r\n",
        'no CRLF behind data' => "4\r\nbodyXX\r\n0\r\n\r\n", 'no size' => "\r\nbody\r\n0\r\n\r\n",
        'blank inside' => "4 4\r\nbody\r\n0\r\n\r\n", 'two sizes' => "4;\r4\r\nbody\r\n0\r\n\r\n",
        'NUL' => "4\0\r\nbody\r\n0\r\n\r\n", 'long' => '0' x 20_000 . "\r\n\r\n",
    );
    for my $name (sort keys %bad) {
        my $client = $t->raw_client;
        $client->write("POST /chunks HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
                . "3\r\nabc\r\n$bad{$name}$smuggled");
        my $answer = $client->read_eof;
        like($answer, qr{\AHTTP/1\.1 4\d\d |\A\z}, $name) or diag($answer);
        my @answers = $answer =~ m{^HTTP/1\.1 }mg;
        cmp_ok(scalar(@answers), '<=', 1, 'one answer at most');
    }
    is(scalar(grep { $_->target eq '/smuggled' } $up->requests), 0, 'nothing was smuggled');
    is(scalar(grep { $_->complete } grep { $_->target eq '/chunks' } $up->requests), 0,
        'no such body looks complete to the upstream');
};

behaviour 'malformed heads are refused', @http1, sub {
    my ($t) = @_;
    my $up = started($t);
    my @cases = (
        'bare LF in the head' => "GET / HTTP/1.1\r\n${host}X-A: b\nX-C: d\r\n\r\n",
        'bare LF everywhere'  => "GET / HTTP/1.1\nHost: www.example.test\n\n",
        'bare CR in a value'  => "GET / HTTP/1.1\r\n${host}X-A: b\rX-C: d\r\n\r\n",
        'CR in a name'        => "GET / HTTP/1.1\r\n${host}X\rA: b\r\n\r\n",
        'NUL in a value'      => "GET / HTTP/1.1\r\n${host}X-A: b\0c\r\n\r\n",
        'NUL in a name'       => "GET / HTTP/1.1\r\n${host}X\0A: b\r\n\r\n",
        'control byte'        => "GET / HTTP/1.1\r\n${host}X-A: b\x01\r\n\r\n",
        'DEL in a value'      => "GET / HTTP/1.1\r\n${host}X-A: b\x7f\r\n\r\n",
        'blank in a name'     => "GET / HTTP/1.1\r\n${host}X A: b\r\n\r\n",
        'blank before colon'  => "GET / HTTP/1.1\r\n${host}X-A : b\r\n\r\n",
        'TAB before colon'    => "GET / HTTP/1.1\r\n${host}X-A\t: b\r\n\r\n",
        'no colon'            => "GET / HTTP/1.1\r\n${host}X-A\r\n\r\n",
        'empty name'          => "GET / HTTP/1.1\r\n${host}: b\r\n\r\n",
        'parentheses in a name' => "GET / HTTP/1.1\r\n${host}X(A): b\r\n\r\n",
        'first line folded'   => "GET / HTTP/1.1\r\n X-A: b\r\n$host\r\n",
        'NUL in the target'   => "GET /\0x HTTP/1.1\r\n$host\r\n",
        'TAB in the target'   => "GET /\tx HTTP/1.1\r\n$host\r\n",
        'CR in the target'    => "GET /\rx HTTP/1.1\r\n$host\r\n",
        'blank in the target' => "GET /x y HTTP/1.1\r\n$host\r\n",
        'two blanks'          => "GET  / HTTP/1.1\r\n$host\r\n",
        'TAB for a blank'     => "GET\t/ HTTP/1.1\r\n$host\r\n",
        'fragment'            => "GET /x#y HTTP/1.1\r\n$host\r\n",
        'no slash'            => "GET x HTTP/1.1\r\n$host\r\n",
        'other scheme'        => "GET ftp://www.example.test/ HTTP/1.1\r\n$host\r\n",
        'userinfo'            => "GET http://u:p\@www.example.test/ HTTP/1.1\r\n$host\r\n",
        'method no token'     => "GE(T / HTTP/1.1\r\n$host\r\n",
        'version 1.11'        => "GET / HTTP/1.11\r\n$host\r\n",
        'version 2.0'         => "GET / HTTP/2.0\r\n$host\r\n",
        'version lower case'  => "GET / http/1.1\r\n$host\r\n",
        'HTTP/0.9'            => "GET /\r\n",
        'blank behind version' => "GET / HTTP/1.1 \r\n$host\r\n",
        'no Host'             => "GET / HTTP/1.1\r\nX-A: b\r\n\r\n",
        'Host twice'          => "GET / HTTP/1.1\r\n${host}Host: other.test\r\n\r\n",
        'Host with a path'    => "GET / HTTP/1.1\r\nHost: www.example.test/x\r\n\r\n",
        'Host with userinfo'  => "GET / HTTP/1.1\r\nHost: a\@www.example.test\r\n\r\n",
        'Host with a blank'   => "GET / HTTP/1.1\r\nHost: www.example.test x\r\n\r\n",
        'Host list'           => "GET / HTTP/1.1\r\nHost: www.example.test, other.test\r\n\r\n",
        'Host port'           => "GET / HTTP/1.1\r\nHost: www.example.test:80x\r\n\r\n",
        'Host port too big'   => "GET / HTTP/1.1\r\nHost: www.example.test:123456\r\n\r\n",
        'Host encoded'        => "GET / HTTP/1.1\r\nHost: www%0d%0aX.test\r\n\r\n",
        'too many fields'     => "GET / HTTP/1.1\r\n$host" . "X: y\r\n" x 1_000 . "\r\n",
        'a long field'        => "GET / HTTP/1.1\r\n${host}X: " . 'y' x 20_000 . "\r\n\r\n",
        'a long line'         => 'GET /' . 'x' x 20_000 . " HTTP/1.1\r\n$host\r\n",
    );
    while (my ($name, $bytes) = splice @cases, 0, 2) {
        refused($t, $up, $name, $bytes . $smuggled);
    }
};

behaviour 'what httpd joins or drops reaches the upstream as one clean message', @http1, sub {
    my ($t) = @_;
    my $up = started($t);
    my $client = $t->raw_client;
    $client->write("\r\nPOST /x HTTP/1.1\r\n${host}X-Fold: a\r\n b\r\nContent-Length: 4\r\n\r\nbody"
            . "GET /next HTTP/1.1\r\n$host\r\n");
    my $response = $client->read_response;
    if ($response->status eq '200') {
        my $seen = $up->request(0);
        is($seen->header('X-Fold'), 'a b', 'a folded field is unfolded');
        unlike($seen->raw_head, qr/\r\n[ \t]/);
        is($seen->body, 'body');
        is($client->read_response->header('X-Target'), '/next', 'pipelined requests are two');
    }
    else {
        is($response->status, 400, 'a folded field is refused');
    }
    $client = $t->raw_client;
    $client->write("POST /x HTTP/1.1\r\n${host}Transfer-Encoding:\r\n chunked\r\n\r\n"
            . "4\r\nbody\r\n0\r\n\r\n");
    if ($client->read_response->status eq '200') {
        is($up->request->header('Transfer-Encoding'), 'chunked', 'also a folded coding');
        is($up->request->body, 'body');
    }
    my $pipelined = $t->raw_client;
    $pipelined->write("POST /1 HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
            . "4;ext=\"a\"\r\nbody\r\n0\r\nX-Trailer: t\r\n\r\nGET /2 HTTP/1.1\r\n$host\r\n"
            . "GET /3 HTTP/1.1\r\n${host}Content-Length: 3\r\n\r\nabcGET /4 HTTP/1.1\r\n$host\r\n");
    is($pipelined->read_response->header('X-Target'), "/$_") for 1 .. 4;
    is_deeply([map { $_->body } ($up->requests)[-4 .. -1]], ['body', '', 'abc', '']);
    my ($first) = grep { $_->target eq '/1' } $up->requests;
    is($first->header('Content-Length'), undef, 'one framing');
    is($first->header('Transfer-Encoding'), 'chunked');
};

behaviour 'bytes that stay unread never become a request', @http1, sub {
    my ($t) = @_;
    my $up = started($t, 'RProxyPass / UP/', '<Location /denied>', 'Require all denied',
        '</Location>', 'LimitRequestBody 1000', 'Timeout 1');
    $up->on_connection(sub {
        my ($conn) = @_;
        my $head = $conn->read_head // return;
        $conn->respond(200, [Connection => 'close'], 'early');
        $conn->notify('answered');
    });
    my $body = "GET /smuggled HTTP/1.1\r\n${host}\r\n" x 10;
    # CVE-2022-22720: an error before the body was read.
    for my $path ('/denied', '/early') {
        my $client = $t->raw_client;
        $client->write("POST $path HTTP/1.1\r\n${host}Content-Length: 900\r\n\r\n$body");
        my $answer = $client->read_eof;
        my @answers = $answer =~ m{^HTTP/1\.1 }mg;
        is(scalar(@answers), 1, "$path: one answer");
    }
    my $client = $t->raw_client;
    $client->write("POST /limit HTTP/1.1\r\n${host}Content-Length: 5000\r\n\r\n" . $body x 2);
    my @answers = $client->read_eof =~ m{^HTTP/1\.1 (\d+)}mg;
    is("@answers", 413);
    is(scalar(grep { $_->target eq '/smuggled' } $up->requests), 0);
};

behaviour 'an absolute form and Host cannot name two servers', @http1, sub {
    my ($t) = @_;
    my $up = started($t);
    my $client = $t->raw_client;
    $client->write("GET http://www.example.test/x HTTP/1.1\r\nHost: admin.internal\r\n\r\n");
    is($client->read_response->status, 200);
    my @hosts = $up->request->headers_all('Host');
    is_deeply(\@hosts, ['www.example.test'], 'the upstream sees one, that of the target');
    is($up->request->target, '/x', 'in origin form');
    is($up->request->header('X-Forwarded-Host'), 'www.example.test');
};

behaviour 'encoded bytes stay encoded in the request line', sub {
    my ($t) = @_;
    my $up = started($t,
        'RProxyPassMatch ^/re/(.*)$ UP/got/$1', 'RProxyPass /rw UP/rw',
        'RProxyRewrite ^/rw/q/(.*)$ /rw/query?v=$1', 'RProxyRewrite ^/rw/(.*)$ /rewritten/$1',
        'RProxyPass / UP/');
    for my $bytes ('%0d%0aX-Evil:%20yes', '%0D%0A%0d%0aGET%20/smuggled%20HTTP/1.1', 'a%20b',
        'a%09b', 'a%0ab', '%20HTTP/1.1%0d%0aHost:%20evil%0d%0a%0d%0a', '%e2%80%a8', '%C2%85',
        'a%3Fb', 'a%23b',
        'a%7fb', 'a%0bb') {
        for my $prefix ('/re/', '/rw/', '/rw/q/', '/') {
            my $response = $t->get("$prefix$bytes");
            is($response->status, 200, "$prefix$bytes");
            my $target = $up->request->target;
            unlike($target, qr/[\x00-\x20\x7f]/, 'no blank and no control byte');
            is(($target =~ tr/?//), $prefix eq '/rw/q/' ? 1 : 0, 'no query of its own');
            like($target, qr/%(?:0d%0a|0a|09|0b|20|23|3f|7f|c2%85|e2%80%a8)/i);
            is($up->request->header('X-Evil'), undef);
        }
    }
    is(scalar(grep { $_->target =~ /smuggled$/ } $up->requests), 0);
    my @requests = $up->requests;
    is(scalar(@requests), 12 * 4, 'each was one request');
};

behaviour 'nothing that a client sends chooses scheme, host or socket', sub {
    my ($t) = @_;
    my $up = started($t, 'RProxyPassMatch ^/re/(.*)$ UP/$1', 'RProxyPass / UP/');
    my $other = $t->upstream;
    my $socket = $t->upstream(unix => 1);
    my $long = 'A' x 5_000;
    for my $target ('/?unix:' . $socket->path . '|http://x/', "/?unix:$long|" . $other->url . '/',
        '/re/unix:' . $socket->path . '|http://x/', '/re/' . $other->url . '/x',
        '/re//127.0.0.1:' . $other->port . '/x', '/re/@127.0.0.1:' . $other->port . '/',
        '/re/:' . $other->port . '/', '/@127.0.0.1:' . $other->port, '/re/%40127.0.0.1/',
        '/proxy:' . $other->url . '/', '/re/..%2f..@x/', '/?' . $other->url) {
        my $response = $t->get($target);
        like($response->status, qr/^(?:200|400|40[34])$/, substr $target, 0, 60);
    }
    is(scalar($other->connections), 0);
    is(scalar($socket->connections), 0);
    is(scalar(grep { ($_->header('Host') // '') ne $t->host } $up->requests), 0);
};

# ---- HTTP/2 ---------------------------------------------------------------------------------

# Pseudo fields and fields as given, on a connection of its own.
sub h2_raw {
    my ($t, @fields) = @_;
    my $client = $t->h2_client;
    my $exchange = RProxy::H2::Exchange->new($client, 'GET');
    $client->send_headers($exchange->id, \@fields, 1);
    return $exchange->response;
}

behaviour 'HTTP/2 fields cannot break out of the request line or a field',
    lanes => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = started($t);
    my %good = (':method' => 'GET', ':scheme' => 'https', ':path' => '/', ':authority' => $t->host);
    my @order = (':method', ':scheme', ':path', ':authority');
    is(h2_raw($t, map { [$_, $good{$_}] } @order)->status, 200, 'the pattern itself is fine');
    my $before = $up->requests;
    my %bad = (
        ':path' => ['/ HTTP/1.1', "/x\ty", "/x\r\nX-Evil: yes", "/x\ny", "/x\0y", "/x\x7f y", '',
            'x',
            "/\r\n\r\nGET /smuggled HTTP/1.1\r\n$host\r\n", '/x#y', '*', "/\x0b", '/x\\y'],
        ':method' => ['GET /smuggled', "GET\r\nX: y", "G\tET", "GET\0", '', 'GE(T', "GET\n"],
        ':authority' => ["$good{':authority'}\r\nX-Evil: yes", 'a b', "a\tb", "a\0", 'a/b', 'u@a',
            'a,b', 'a:b', 'a:99999'],
        ':scheme' => ["https\r\nX: y", "https ://x"],
    );
    for my $name (sort keys %bad) {
        for my $value (@{ $bad{$name} }) {
            my %fields = (%good, $name => $value);
            my $response = h2_raw($t, map { [$_, $fields{$_}] } @order);
            (my $shown = $value) =~ s/([^\x20-\x7e])/sprintf '\x%02x', ord $1/ge;
            ok(!defined $response->status || $response->status =~ /^4\d\d$/,
                "$name \"$shown\" is refused") or diag($response->status);
        }
    }
    for my $field (["x-a", "b\r\nx-evil: yes"], ["x-a", "b\nc"], ["x-a", "b\0c"], ["x a", 'b'],
        ["x-a:", 'b'], ["x-a\r\nx-evil", 'yes'], ['X-Upper', 'b'], ['', 'b'],
        ['transfer-encoding', 'chunked'], ['connection', 'x-a'], ['upgrade', 'websocket'],
        ['content-length', '-1'], ['content-length', '5'], ['host', 'other.test'],
        ['te', 'chunked']) {
        my $response = h2_raw($t, (map { [$_, $good{$_}] } @order), $field);
        (my $shown = "$field->[0]: $field->[1]") =~ s/([^\x20-\x7e])/sprintf '\x%02x', ord $1/ge;
        my @new = splice @{ [$up->requests] }, $before;
        if (@new) {
            # Dropped or cleaned instead of refused: the upstream must not see a trace of it.
            my $head = $new[-1]->raw_head;
            unlike($head, qr/^(?:transfer-encoding|upgrade|content-length|x-evil|te):/mi,
                "\"$shown\" leaves nothing behind");
            is_deeply([$new[-1]->headers_all('Host')], [$t->host], 'one Host, :authority');
            $before += @new;
            next;
        }
        ok(!defined $response->status || $response->status =~ /^4\d\d$/,
            "\"$shown\" is refused") or diag($response->status);
    }
    is(scalar(grep { $_->target =~ /smuggled/ || $_->header('X-Evil') } $up->requests), 0);
};

behaviour 'HTTP/2: Host and :authority', lanes => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = started($t);
    my @base = ([':method', 'GET'], [':scheme', 'https'], [':path', '/']);
    my $response = h2_raw($t, @base, ['host', $t->host]);
    is($response->status, 200, 'Host alone is fine');
    is_deeply([$up->request->headers_all('Host')], [$t->host]);
    my $before = $up->requests;
    $response = h2_raw($t, @base, [':authority', $t->host], ['host', 'evil.test']);
    if ($up->requests > $before) {
        is_deeply([$up->request->headers_all('Host')], [$t->host], ':authority counts');
        is($up->request->header('X-Forwarded-Host'), $t->host);
    }
    else {
        ok(!defined $response->status || $response->status =~ /^4/, 'two names are refused');
    }
};

behaviour 'HTTP/2: a body and its length have to agree', lanes => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = started($t);
    my @base = ([':method', 'POST'], [':scheme', 'https'], [':path', '/'],
        [':authority', $t->host]);
    for my $case (['5', 'too long by far'], ['50', 'short'], ['0', 'body'], ['x', 'body']) {
        my ($length, $body) = @$case;
        my $client = $t->h2_client;
        my $exchange = RProxy::H2::Exchange->new($client, 'POST');
        $client->send_headers($exchange->id, [@base, ['content-length', $length]], 0);
        $client->send_frame(RProxy::H2::DATA, RProxy::H2::END_STREAM, $exchange->id, $body);
        my $response = $exchange->response;
        ok(!defined $response->status || $response->status =~ /^[45]/, "$length for $body")
            or diag($response->status);
    }
    is(scalar(grep { $_->complete && length $_->body } $up->requests), 0);
    is($t->request('POST', '/', { body => 'fine' })->body, 'fine');
};

done_testing;
