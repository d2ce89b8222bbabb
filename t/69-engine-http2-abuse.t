#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# HTTP/2 clients that are wrong or hostile, on connections of the engine: malformed requests are
# errors of their stream and reach no upstream (RFC 9113 section 8.1.1), and whatever a client may
# do has a limit (section 10.5). Meanwhile others are served.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::H2;
use Time::HiRes ();

use constant { MIB => 1_048_576, STREAMS => 100, UNDER_WAY => 40, NULL => "\0" };
# A sanitizer keeps what was freed.
use constant ROOM => MIB * ($ENV{RPROXY_PRELOAD} || $ENV{RPROXY_VALGRIND} ? 16 : 1);

my @engine = (lanes => ['engine']);
my $authority = 'www.example.test';
my @GET = ([':method', 'GET'], [':scheme', 'http'], [':path', '/x'], [':authority', $authority]);
my @POST = ([':method', 'POST'], @GET[1 .. 3]);

# The engine for HTTP/2 with prior knowledge, server-status on an address of its own.
sub proxied {
    my ($t, @lines) = @_;
    my $up = $t->upstream;
    $t->extra_modules('status');
    $t->{status_port} = $t->listen;
    $t->vhost('status.example.test', ['<Location />', 'SetHandler server-status', '</Location>'],
        port => $t->{status_port});
    $t->config('Protocols h2c http/1.1', @lines, 'RProxyPass / ' . $up->url . '/');
    return $up;
}

sub connect_h2 {
    my ($t, %options) = @_;
    return RProxy::H2->connect(port => $t->port, host_header => $t->host, %options);
}

sub counter {
    my ($t, $name) = @_;
    my $status = $t->raw_client(port => $t->{status_port})->get('/?auto')->body;
    return $status =~ /^RProxy\Q$name\E: (-?\d+)$/m ? $1 : undef;
}

sub ended_for { return counter($_[0], "HTTP2Ended-$_[1]") }

# What it does to a connection must end that, be counted, and not harm another one.
sub ends_with_calm {
    my ($t, $what, $abuse, %options) = @_;
    my $good = connect_h2($t);
    is($good->get('/before')->body, "upstream\n", 'another connection is served');
    my $child = $t->child_pid;
    my $before = ended_for($t, $what);
    my $bad = connect_h2($t, %options);
    $bad->wait_settings;
    $abuse->($bad);
    is($bad->end, 'ENHANCE_YOUR_CALM', 'the connection ends');
    is(ended_for($t, $what), $before + 1, 'and is counted');
    is($good->get('/after')->body, "upstream\n", 'the other one is served on');
    is($t->child_pid, $child, 'by the same child');
    return;
}

# ---- malformed -------------------------------------------------------------------------------

my %MALFORMED = (
    'a name in capitals' => [@GET, ['X-A', 'b']],
    'Connection' => [@GET, ['connection', 'close']],
    'Keep-Alive' => [@GET, ['keep-alive', 'timeout=5']],
    'Proxy-Connection' => [@GET, ['proxy-connection', 'close']],
    'Upgrade' => [@GET, ['upgrade', 'websocket']],
    'Transfer-Encoding' => [@POST, ['transfer-encoding', 'chunked']],
    'TE that is not trailers' => [@GET, ['te', 'gzip']],
    'Host that is not the authority' => [@GET, ['host', 'other.example.test']],
    'Host twice' => [@GET[0 .. 2], ['host', $authority], ['host', $authority]],
    'no :method' => [@GET[1 .. 3]],
    'no :path' => [@GET[0, 1, 3]],
    'no :scheme' => [@GET[0, 2, 3]],
    'an empty :path' => [@GET[0, 1, 3], [':path', '']],
    ':method twice' => [@GET, [':method', 'GET']],
    ':path twice' => [@GET, [':path', '/y']],
    ':authority twice' => [@GET, [':authority', $authority]],
    'a pseudo-header field behind others' => [@GET[0 .. 2], ['x-a', 'b'], $GET[3]],
    'an unknown pseudo-header field' => [@GET, [':x', 'b']],
    ':status in a request' => [@GET, [':status', '200']],
    ':protocol without CONNECT' => [@GET, [':protocol', 'websocket']],
    ':path with a blank' => [@GET[0, 1, 3], [':path', '/a b']],
    ':path with a blank and a version' => [@GET[0, 1, 3], [':path', '/a HTTP/1.1']],
    ':path with CRLF' => [@GET[0, 1, 3], [':path', "/a\r\nX-A: b"]],
    ':path with LF' => [@GET[0, 1, 3], [':path', "/a\nb"]],
    ':path with NUL' => [@GET[0, 1, 3], [':path', "/a\0b"]],
    ':path with DEL' => [@GET[0, 1, 3], [':path', "/a\x7fb"]],
    ':path with a tab' => [@GET[0, 1, 3], [':path', "/a\tb"]],
    ':path without a slash' => [@GET[0, 1, 3], [':path', 'x']],
    'a URI in :path' => [@GET[0, 1, 3], [':path', 'http://other.example.test/']],
    ':method with a blank' => [[':method', 'GET /y'], @GET[1 .. 3]],
    ':method with CRLF' => [[':method', "GET\r\nX"], @GET[1 .. 3]],
    'an empty :method' => [[':method', ''], @GET[1 .. 3]],
    ':authority with a user' => [@GET[0 .. 2], [':authority', "u\@$authority"]],
    ':authority with a path' => [@GET[0 .. 2], [':authority', "$authority/x"]],
    ':authority with CRLF' => [@GET[0 .. 2], [':authority', "$authority\r\nX: y"]],
    ':authority with a blank' => [@GET[0 .. 2], [':authority', "$authority x"]],
    ':authority twice in one' => [@GET[0 .. 2], [':authority', "$authority,$authority"]],
    ':scheme with CRLF' => [@GET[0, 2, 3], [':scheme', "http\r\nX: y"]],
    'a value with CRLF' => [@GET, ['x-a', "b\r\nx-c: d"]],
    'a value with LF' => [@GET, ['x-a', "b\nc"]],
    'a value with CR' => [@GET, ['x-a', "b\rc"]],
    'a value with NUL' => [@GET, ['x-a', "b\0c"]],
    'a value with a blank before' => [@GET, ['x-a', ' b']],
    'a value with a blank behind' => [@GET, ['x-a', 'b ']],
    'a value of a pseudo-header field with a blank' => [@GET[0, 1, 3], [':path', ' /x']],
    'a name with a blank' => [@GET, ['x a', 'b']],
    'a name with a colon' => [@GET, ['x:a', 'b']],
    'a name with CRLF' => [@GET, ["x-a\r\nb", 'c']],
    'a name with NUL' => [@GET, ["x-a\0", 'c']],
    'an empty name' => [@GET, ['', 'b']],
    'Content-Length with a sign' => [@POST, ['content-length', '+5']],
    'Content-Length with a blank' => [@POST, ['content-length', '5 5']],
    'Content-Length twice' => [@POST, ['content-length', '5'], ['content-length', '6']],
    'Content-Length too long' => [@POST, ['content-length', '9' x 30]],
    'Content-Length without a body' => [@POST, ['content-length', '5']],
    'CONNECT with :path' => [[':method', 'CONNECT'], [':path', '/x'], $GET[3]],
    'CONNECT without an authority' => [[':method', 'CONNECT']],
);

behaviour 'a malformed head is an error of its stream', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $t->start;
    my $h2 = connect_h2($t);
    for my $name (sort keys %MALFORMED) {
        my $exchange = $h2->begin_fields($MALFORMED{$name}, 1);
        my $response = $exchange->response;
        my $outcome = $response->status // $exchange->error;
        like($outcome, qr/^(?:RST_STREAM PROTOCOL_ERROR|400)$/, $name);
        $h2 = connect_h2($t) if defined $h2->stream->closed;
    }
    is($h2->get('/good')->body, "upstream\n", 'the connection goes on');
    is_deeply([map { $_->target } $up->requests], ['/good'], 'nothing else reached the upstream');
};

behaviour 'bodies that are not as long as Content-Length says', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->expect_errors;
    $t->start;
    my $h2 = connect_h2($t);
    my @length = ['content-length', '5'];
    my $short = $h2->begin_fields([@POST, @length], 0);
    $short->write('abc');
    $short->finish;
    is($short->response->error, 'RST_STREAM PROTOCOL_ERROR', 'too short');
    my $long = $h2->begin_fields([@POST, @length], 0);
    $long->write('abcdef');
    is($long->response->error, 'RST_STREAM PROTOCOL_ERROR', 'too long');
    my $trailers = $h2->begin_fields([@POST, @length], 0);
    $trailers->write('abc');
    $trailers->finish(['x-a', 'b']);
    is($trailers->response->error, 'RST_STREAM PROTOCOL_ERROR', 'too short before trailers');
    is($h2->get('/good')->body, "upstream\n", 'the connection goes on');
    is_deeply([map { $_->target } grep { $_->complete } $up->requests], ['/good'],
        'no whole request but the good one reached the upstream');
};

behaviour 'malformed trailers', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->expect_errors;
    $t->start;
    my $h2 = connect_h2($t);
    my %trailers = (
        'a pseudo-header field' => [':path', '/x'], 'a name in capitals' => ['X-A', 'b'],
        'Connection' => ['connection', 'x-a'], 'CRLF' => ['x-a', "b\r\nc: d"],
        'Transfer-Encoding' => ['transfer-encoding', 'chunked'],
    );
    for my $name (sort keys %trailers) {
        $h2->get('/good');              # an idle connection to the upstream makes it fast
        my $exchange = $h2->together(sub {
            my $begun = $h2->begin_fields(\@POST, 0);
            $begun->write('abc');
            $h2->send_headers($begun->id, [$trailers{$name}], 1);
            return $begun;
        });
        is($exchange->response->error, 'RST_STREAM PROTOCOL_ERROR', $name);
    }
    is_deeply([map { $_->method } grep { $_->complete && $_->target ne '/good' } $up->requests], [],
        'no whole request reached the upstream');
};

behaviour 'frames that are wrong end the connection', @engine, sub {
    my ($t) = @_;
    proxied($t);
    $t->start;
    my $head = RProxy::HPACK->encode(@GET);
    my %wrong = (
        'PROTOCOL_ERROR DATA on stream 0' => sub { $_[0]->send_frame(0, 0, 0, 'abc') },
        'PROTOCOL_ERROR DATA on an idle stream' => sub { $_[0]->send_frame(0, 0, 7, 'abc') },
        'PROTOCOL_ERROR an even stream' => sub { $_[0]->send_frame(1, 5, 2, $head) },
        'PROTOCOL_ERROR padding as long as the frame' =>
            sub { $_[0]->send_frame(1, 0xd, 1, "\5abc") },
        'FRAME_SIZE_ERROR a PING of 7 bytes' => sub { $_[0]->send_frame(6, 0, 0, 'x' x 7) },
        'FRAME_SIZE_ERROR a frame over the limit' =>
            sub { $_[0]->send_frame(0, 0, 1, 'x' x 16_385) },
        'FRAME_SIZE_ERROR SETTINGS of 5 bytes' => sub { $_[0]->send_frame(4, 0, 0, 'x' x 5) },
        'FLOW_CONTROL_ERROR a window over its limit' =>
            sub { $_[0]->send_frame(8, 0, 0, pack 'N', 0x7fffffff) },
        'PROTOCOL_ERROR a window that grows by nothing' =>
            sub { $_[0]->send_frame(8, 0, 0, pack 'N', 0) },
        'PROTOCOL_ERROR CONTINUATION without HEADERS' => sub { $_[0]->send_frame(9, 4, 1, $head) },
        'PROTOCOL_ERROR a frame between HEADERS and CONTINUATION' => sub {
            $_[0]->send_frame(1, 1, 1, $head);
            $_[0]->send_frame(6, 0, 0, 'x' x 8);
        },
        'PROTOCOL_ERROR PUSH_PROMISE' => sub { $_[0]->send_frame(5, 4, 1, pack('N', 2) . $head) },
        'COMPRESSION_ERROR an index without an entry' =>
            sub { $_[0]->send_frame(1, 5, 1, "\xff\x7f") },
        'COMPRESSION_ERROR a table larger than allowed' =>
            sub { $_[0]->send_frame(1, 5, 1, "\x3f\xe1\xff\x07$head") },
    );
    for my $name (sort keys %wrong) {
        my ($error, $what) = split / /, $name, 2;
        my $h2 = connect_h2($t);
        $h2->wait_settings;
        $wrong{$name}->($h2);
        is($h2->end, $error, $what);
    }
    is(connect_h2($t)->get('/')->body, "upstream\n", 'others are served');
};

behaviour 'something else than HTTP/2 behind the first bytes of its preface', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $t->start;
    for my $bytes ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.0\r\nHost: $authority\r\n\r\n") {
        my $client = $t->raw_client;
        $client->write($bytes);
        ok(defined $client->wait_closed, 'the connection ends');
    }
    my $slow = $t->raw_client;
    for my $piece ('PRI * HT', "TP/2.0\r\n\r", "\nSM\r\n\r\n" . "\0\0\0\4\0\0\0\0\0") {
        $slow->write($piece);
        $slow->quiet_for(0.05);
    }
    my ($length, $type) = unpack 'x2CC', $slow->read_exact(9);
    is($type, RProxy::H2::SETTINGS, 'a preface in pieces is one');
    is_deeply([$up->requests], [], 'nothing reached the upstream');
};

# ---- floods ----------------------------------------------------------------------------------

behaviour 'streams that are reset as soon as they are begun', @engine, sub {
    my ($t) = @_;
    proxied($t)->expect_errors;
    $t->start;
    ends_with_calm($t, 'RST_STREAM', sub {
        my ($h2) = @_;
        for (1 .. 1000) {
            my $exchange = $h2->begin_fields(\@GET, 1);
            $h2->send_reset($exchange->id) or last;
        }
    });
};

# The client makes the server reset them: CVE-2025-8671.
my %MADE_TO_RESET = (
    'a window over its limit' => sub {
        my ($h2) = @_;
        my $exchange = $h2->begin_fields(\@GET, 1);
        return $h2->send_frame(RProxy::H2::WINDOW_UPDATE, 0, $exchange->id, pack 'N', 0x7fffffff);
    },
    'a body that is too short' => sub {
        my ($h2) = @_;
        return $h2->begin_fields([@POST, ['content-length', '5']], 0)->finish;
    },
    'malformed trailers' => sub {
        my ($h2) = @_;
        my $exchange = $h2->begin_fields(\@POST, 0);
        return $h2->send_headers($exchange->id, [['X-A', 'b']], 1);
    },
    'trailers that end nothing' => sub {
        my ($h2) = @_;
        my $exchange = $h2->begin_fields(\@POST, 0);
        return $h2->send_headers($exchange->id, [['x-a', 'b']], 0);
    },
    'malformed heads' => sub { return $_[0]->begin_fields([@GET, ['te', 'gzip']], 1) },
);

for my $name (sort keys %MADE_TO_RESET) {
    behaviour "a client that makes us reset its streams: $name", @engine, sub {
        my ($t) = @_;
        proxied($t)->expect_errors;
        $t->start;
        ends_with_calm($t, 'malformed', sub {
            my ($h2) = @_;
            for my $number (1 .. 1000) {
                $MADE_TO_RESET{$name}->($h2);
                # Never more streams at once than allowed.
                last if $number % 50 == 0 && !$h2->ping;
            }
        });
    };
}

my %FLOODS = (
    'SETTINGS' => sub { $_[0]->send_frame(RProxy::H2::SETTINGS, 0, 0, pack 'nN', 4, 65_535) },
    'PING' => sub { $_[0]->send_frame(RProxy::H2::PING, 0, 0, 'x' x 8) },
    'WINDOW_UPDATE' => sub { $_[0]->send_frame(RProxy::H2::WINDOW_UPDATE, 0, 0, pack 'N', 1) },
);
my %MANY = ('WINDOW_UPDATE' => 20_000);

for my $name (sort keys %FLOODS) {
    behaviour "too many $name", @engine, sub {
        my ($t) = @_;
        proxied($t);
        $t->start;
        ends_with_calm($t, $name, sub {
            my ($h2) = @_;
            for (1 .. $MANY{$name} // 2000) {
                $FLOODS{$name}->($h2) or last;
            }
        });
    };
}

# Its requests are served behind those of others from here on, until it has been good for a while.
behaviour 'a client that does much of what is bounded', @engine, sub {
    my ($t) = @_;
    proxied($t)->expect_errors;
    $t->start;
    my @clients = map { connect_h2($t) } 1 .. 4;
    my $wrong = 0;
    for my $round (1 .. 8) {
        for my $h2 (@clients) {
            for (1 .. 20) {
                my $exchange = $h2->begin_fields(\@GET, 1);
                $h2->send_reset($exchange->id);
            }
        }
        my @exchanges = map {
            my $h2 = $_;
            map { $h2->begin('POST', '/get', { body => 'x' x 40_000 }) } 1 .. 2
        } @clients;
        $wrong += grep { ($_->response->body // '') ne "upstream\n" } @exchanges;
    }
    is($wrong, 0, 'all of its other requests are served');
    is(scalar(grep { $_->ping } @clients), 4, 'and its connections stay');
};

behaviour 'a connection that ends with streams under way', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        return $conn->respond(200, [], "upstream\n") if $request->target ne '/x';
        $conn->notify('arrived');
        $conn->wait_closed;
        $conn->notify('closed');
    });
    $t->start;
    ends_with_calm($t, 'SETTINGS', sub {
        my ($h2) = @_;
        $h2->together(sub { $h2->begin_fields(\@GET, 1) for 1 .. UNDER_WAY });
        wait_until('the requests at the upstream', undef,
            sub { $up->count('arrived') == UNDER_WAY });
        for (1 .. 2000) {
            $FLOODS{SETTINGS}->($h2) or last;
        }
    });
    wait_until('the ends at the upstream', undef, sub { $up->count('closed') == UNDER_WAY });
    wait_until('the lines of the access log', undef,
        sub { UNDER_WAY == grep { m{^499 .*"GET /x HTTP/2\.0"$} } $t->access_log });
    pass('every exchange has ended, and is logged');
};

# Nobody heeds them (RFC 9113 section 5.3.2).
behaviour 'very many PRIORITY', @engine, sub {
    my ($t) = @_;
    proxied($t);
    $t->start;
    my $good = connect_h2($t);
    my $h2 = connect_h2($t);
    $h2->wait_settings;
    my $before = $t->memory->{rss};
    $h2->send_frame(RProxy::H2::PRIORITY, 0, $_, pack 'NC', $_ + 2, 16)
        for map { 2 * $_ + 1 } 1 .. 20_000;
    $h2->ping;
    cmp_ok($t->memory->{rss} - $before, '<', 2 * ROOM, 'they leave nothing behind');
    is($good->get('/good')->body, "upstream\n", 'others are served');
};

behaviour 'too many PRIORITY_UPDATE', @engine, sub {
    my ($t) = @_;
    proxied($t);
    $t->start;
    ends_with_calm($t, 'PRIORITY', sub {
        my ($h2) = @_;
        for my $number (1 .. 2000) {
            $h2->send_frame(0x10, 0, 0, pack('N', 1) . 'u=' . $number % 8) or last;
        }
    });
};

behaviour 'too many DATA without bytes', @engine, sub {
    my ($t) = @_;
    proxied($t, 'KeepAliveTimeout 30')->expect_errors;
    $t->start;
    for my $padding ('', "\5" . NULL x 5) {
        ends_with_calm($t, 'empty-DATA', sub {
            my ($h2) = @_;
            my $exchange = $h2->begin_fields(\@POST, 0);
            for (1 .. 2000) {
                $h2->send_frame(RProxy::H2::DATA, length $padding ? RProxy::H2::PADDED : 0,
                    $exchange->id, $padding) or last;
            }
        });
    }
};

behaviour 'a head in endless pieces', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $t->start;
    my $good = connect_h2($t);
    my $ended = 0;
    for my $piece ('', RProxy::HPACK->encode(['x-a', 'b' x 10_000])) {
        my $child = $t->child_pid;
        my $before = $t->memory->{rss};
        my $h2 = connect_h2($t);
        $h2->send_frame(RProxy::H2::HEADERS, 1, 1, RProxy::HPACK->encode(@GET));
        for (1 .. 10_000) {
            $h2->send_frame(RProxy::H2::CONTINUATION, 0, 1, $piece) or last;
        }
        isnt($h2->end, undef, 'the connection ends');
        is(ended_for($t, 'CONTINUATION'), ++$ended, 'and is counted');
        cmp_ok($t->memory->{rss} - $before, '<', 4 * ROOM, 'without growing');
        is($good->get('/good')->body, "upstream\n", 'another one is served');
        is($t->child_pid, $child, 'by the same child');
    }
    is_deeply([grep { $_->target ne '/good' } $up->requests], [], 'nothing reached the upstream');
};

# ---- heads that are large ----------------------------------------------------------------------

# Puts a field into the table, and that many times into the head: a byte each.
sub repeated {
    my ($field, $times) = @_;
    my ($name, $value) = @$field;
    return RProxy::HPACK->encode(@GET) . "\x40" . substr(RProxy::HPACK->encode($field), 1)
        . "\xbe" x $times;
}

behaviour 'a small head that expands to a large one', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $t->start;
    my $good = connect_h2($t);
    my $before = $t->memory->{rss};
    my $h2 = connect_h2($t);
    for (1 .. 20) {
        my $exchange = $h2->begin_block(repeated(['x-a', 'b' x 4000], 20), 1);
        is($exchange->response->status, 431, 'it is refused');
    }
    cmp_ok($t->memory->{rss} - $before, '<', 8 * ROOM, 'without growing');
    is($good->get('/good')->body, "upstream\n", 'another connection is served');
    is_deeply([map { $_->target } $up->requests], ['/good'], 'nothing else reached the upstream');
};

behaviour 'a small head, or trailer section, that expands to a huge one', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $t->start;
    my $before = $t->memory->{rss};
    for my $times (40, 16_000) {
        ends_with_calm($t, 'head', sub {
            $_[0]->begin_block(repeated(['x-a', 'b' x 4000], $times), 1);
        });
    }
    is_deeply([grep { !m{^/(?:before|after)$} } map { $_->target } $up->requests], [],
        'nothing of it reached the upstream');
    ends_with_calm($t, 'head', sub {
        my ($h2) = @_;
        my $exchange = $h2->begin_fields([@POST], 0);
        $h2->send_block($exchange->{id}, substr(repeated(['x-a', 'b' x 4000], 16_000),
            length RProxy::HPACK->encode(@GET)), 1);
    });
    cmp_ok($t->memory->{rss} - $before, '<', 8 * ROOM, 'without growing');
};

behaviour 'cookies in many pieces cost no more memory than their head', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, 'LimitRequestFieldSize 65536', 'RProxyTimeout first-byte=60');
    $up->crowd(reply => '', hold => 'never');
    $t->start;
    my $h2 = connect_h2($t);
    $h2->wait_settings;
    my $before = $t->memory->{rss};
    for (1 .. STREAMS) {
        $h2->begin_block(repeated(['cookie', 'a=' . 'b' x 20], 800), 1);
    }
    ok($h2->ping, 'all heads were read');
    cmp_ok($t->memory->{rss} - $before, '<', 64 * ROOM, 'a connection with all its streams');
};

behaviour 'limits of heads', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, 'LimitRequestFields 10', 'LimitRequestFieldSize 200',
        'LimitRequestLine 100');
    $t->start;
    my $h2 = connect_h2($t);
    my %large = (
        'many fields' => [@GET, map { ["x-$_", 'a'] } 1 .. 20],
        'a long field' => [@GET, ['x-a', 'b' x 300]],
        'a long path' => [@GET[0, 1, 3], [':path', '/' . 'a' x 200]],
        'a head over our SETTINGS' => [@GET, map { ["x-$_", 'a' x 1000] } 1 .. 70],
        'more fields than fit' => [@GET, map { ["x-$_", 'a'] } 1 .. 300],
    );
    for my $name (sort keys %large) {
        like($h2->begin_fields($large{$name}, 1)->response->status // 'none', qr/^4(?:00|14|31)$/,
            $name);
    }
    my $exchange = $h2->begin_fields(\@POST, 0);
    $exchange->write('abc');
    $exchange->finish(map { ["x-$_", 'a'] } 1 .. 20);
    is($exchange->response->status, '400', 'many trailers');
    is($h2->get('/good')->body, "upstream\n", 'the connection goes on');
    is_deeply([grep { $_->complete && $_->target ne '/good' } $up->requests], [],
        'nothing else reached the upstream');
};

# ---- time and number -------------------------------------------------------------------------

behaviour 'more streams than allowed', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->crowd(reply => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", hold => 'go');
    $t->start;
    my $early = connect_h2($t);
    my $settings = $early->wait_settings;
    is($settings->{3}, STREAMS, 'the limit is announced');
    $early->ping;
    my @streams = map { $early->begin_fields(\@GET, 1) } 1 .. STREAMS;
    ok($early->ping, 'as many as allowed');
    my $more = $early->begin_fields(\@GET, 1);
    my $outcome = $more->response->error;
    like($outcome, qr/^(?:RST_STREAM REFUSED_STREAM|GOAWAY PROTOCOL_ERROR)$/,
        'one more is refused');
    is($up->count('request') <= STREAMS ? 1 : $up->count('request'), 1,
        'and not sent to the upstream');
    $up->signal('go');
    is($t->is_running, 1, 'httpd lives');
};

# Its settings are not acknowledged: it need not know the limit yet.
behaviour 'more streams than allowed before the settings are known', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->crowd(reply => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", hold => 'go');
    $t->start;
    my $h2 = connect_h2($t);
    my @streams = map { $h2->begin_fields(\@GET, 1) } 1 .. STREAMS + 10;
    is($_->response->error, 'RST_STREAM REFUSED_STREAM', 'refused')
        for @streams[STREAMS .. $#streams];
    $up->signal('go');
    is_deeply([grep { $_ ne 'ok' } map { $_->response->body } @streams[0 .. STREAMS - 1]], [],
        'the others are served');
};

behaviour 'a window that is never opened', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, 'RProxyTimeout idle=1', 'Timeout 2');
    $up->expect_errors;
    $up->reply_with(200, [], 'x' x MIB);
    $t->start;
    my $h2 = connect_h2($t, settings => { RProxy::H2::SETTING_INITIAL_WINDOW, 0 });
    my $exchange = $h2->begin_fields(\@GET, 1);
    is($exchange->head->status, '200', 'the head comes');
    like($exchange->response->error, qr/^RST_STREAM (?:CANCEL|INTERNAL_ERROR)$/,
        'a large answer is given up');
    $up->reply_with(200, [], 'x' x 1000);
    my $small = $h2->begin_fields(\@GET, 1);
    is($small->head->status, '200', 'the head of another one comes');
    is($small->response->error, 'RST_STREAM CANCEL', 'a small answer is given up, too');
    is(connect_h2($t)->get('/')->body, 'x' x 1000, 'others are served');
};

# It takes a frame now and then: as long as it takes what there is, it is not given up.
behaviour 'a client that takes an answer slowly', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, 'Timeout 2');
    $up->reply_with(200, [], 'x' x 60_000);
    $t->start;
    my $h2 = connect_h2($t, auto_window => 0,
        settings => { RProxy::H2::SETTING_INITIAL_WINDOW, 0 });
    my $exchange = $h2->begin_fields(\@GET, 1);
    is($exchange->head->status, '200', 'the head comes');
    my $body = '';
    for (1 .. 10) {
        $h2->send_frame(RProxy::H2::WINDOW_UPDATE, 0, $exchange->id, pack 'N', 6000);
        my $piece = $exchange->read_exact(6000);
        $body .= $piece;
        Time::HiRes::sleep(0.25);
    }
    is(length $body, 60_000, 'all of it came');
};

behaviour 'a client that reads nothing, but keeps sending', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, 'Timeout 1', 'RProxyTimeout idle=60');
    $up->expect_errors;
    $up->reply_with(200, [], 'x' x (8 * MIB));
    $t->start;
    my $h2 = connect_h2($t, receive_buffer => 4096,
        settings => { RProxy::H2::SETTING_INITIAL_WINDOW, 0x7fffffff });
    $h2->send_frame(RProxy::H2::WINDOW_UPDATE, 0, 0, pack 'N', 0x70000000);
    $h2->begin_fields(\@GET, 1) for 1 .. 5;
    wait_until('the connection to be given up', undef, sub {
        Time::HiRes::sleep(0.25);
        return !$h2->send_frame(RProxy::H2::WINDOW_UPDATE, 0, 0, pack 'N', 1);
    });
    pass('the connection is given up');
};

my %STALLED = (
    'a preface' => sub { },
    'half a frame head' => sub { $_[0]->stream->write("\0\0\7") },
    'half a head' => sub { $_[0]->send_frame(RProxy::H2::HEADERS, 1, 1,
        RProxy::HPACK->encode(@GET)) },
    'half a frame of a head' => sub { $_[0]->stream->write("\0\0\xff\1\5\0\0\0\1ab") },
    'half a head after a request' => sub {
        my ($h2) = @_;
        $h2->get('/good');
        $h2->send_frame(RProxy::H2::HEADERS, 1, $h2->{next_id}, RProxy::HPACK->encode(@GET));
    },
    'half a frame of a head after a request' => sub {
        my ($h2) = @_;
        $h2->get('/good');
        $h2->stream->write("\0\0\xff\1\5\0\0\0\3ab");
    },
);

for my $name (sort keys %STALLED) {
    behaviour "a client that sends $name and stops", @engine, sub {
        my ($t) = @_;
        proxied($t, 'Timeout 1', 'KeepAliveTimeout 1');
        $t->start;
        my $h2 = connect_h2($t);
        $h2->ping;                      # no acknowledgement gets in between
        $STALLED{$name}->($h2);
        ok(defined $h2->end, 'the connection ends');
    };
}

behaviour 'a client that sends half a head and leaves', @engine, sub {
    my ($t) = @_;
    proxied($t);
    $t->start;
    my $child = $t->child_pid;
    for my $flags (0, 1) {
        my $h2 = connect_h2($t);
        $h2->ping;
        $h2->send_frame(RProxy::H2::HEADERS, $flags, 1, RProxy::HPACK->encode(@GET));
        $h2->close;
    }
    is(connect_h2($t)->get('/')->body, "upstream\n", 'others are served');
    is($t->child_pid, $child, 'by the same child');
    is(counter($t, $_), 0, "$_ requests are none") for qw(Active Parked);
};

done_testing;
