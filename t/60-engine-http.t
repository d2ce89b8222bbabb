#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# HTTP/1.1 in the engine where both lanes have a hand in it: order of pipelined requests, bodies,
# persistence, limits. What the pipeline does is the measure.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Lanes;

my @engine = (lanes => [qw(engine engine-tls)]);
my $host = "Host: www.example.test\r\n";
my $close = "${host}Connection: close\r\n\r\n";

# Requests for /guarded and /static are the pipeline's, all others the engine's; %e in X-Lane of the
# log only, so that answers are the same.
my @MIXED = ('<Location /guarded>', 'Header set X-Guard 1', '</Location>', 'RProxyPass /static !');

sub mixed {
    my ($t, @lines) = @_;
    my $up = $t->upstream;
    $up->on_request(sub {
        my ($request) = @_;
        return [200, ['X-Target' => $request->target, 'X-Method' => $request->method],
            $request->body];
    });
    $t->extra_modules('headers');
    utime 0, 1_000_000_000, $t->file("htdocs/static/$_", "static $_") for 0 .. 9;
    my $lanes = RProxy::Lanes->configure($t, [@MIXED, @lines, 'RProxyPass / ' . $up->url . '/']);
    $t->access_format('%{rproxy-lane}e %U');
    $t->start;
    return ($lanes, $up);
}

sub chunked { return join('', map { sprintf("%x\r\n%s\r\n", length, $_) } @_) . "0\r\n\r\n" }

# The same in both lanes, and so many answers; returns the engine's.
sub same {
    my ($lanes, $name, $bytes, $count, %options) = @_;
    my ($pipeline, $engine) = $lanes->answers($bytes, %options);
    is($engine, $pipeline, "$name: as in the pipeline");
    my $answers = () = $engine =~ m{HTTP/1\.1 [2-5]\d\d }g;
    is($answers, $count, "$name: answers") if defined $count;
    return $engine;
}

# [bytes, what its answer must have] of one request, by number.
sub request_of_kind {
    my ($number) = @_;
    my $digit = $number % 10;
    my $body = "body $number " . 'x' x (37 * $number);
    return (
        sub { ["GET /engine/$number HTTP/1.1\r\n$host\r\n", "X-Target: /engine/$number\r\n"] },
        sub { ["GET /static/$digit HTTP/1.1\r\n$host\r\n", "\r\n\r\nstatic $digit"] },
        sub { ["POST /engine/$number HTTP/1.1\r\n${host}Content-Length: " . length($body)
                    . "\r\n\r\n$body", $body] },
        sub { ["GET /guarded/$number HTTP/1.1\r\n$host\r\n", "X-Target: /guarded/$number\r\n"] },
        sub { ["PUT /engine/$number HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
                    . chunked('chunked ', $body), "chunked $body"] },
        sub { ["POST /guarded/$number HTTP/1.1\r\n${host}Content-Length: " . length($body)
                    . "\r\n\r\n$body", $body] },
        sub { ["HEAD /engine/$number HTTP/1.1\r\n$host\r\n", "X-Target: /engine/$number\r\n"] },
        sub { ["PUT /guarded/$number HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
                    . chunked($body, 'end'), "${body}end"] },
        sub { ["OPTIONS /%7euser/$number HTTP/1.1\r\n$host\r\n",
                "X-Target: /%7euser/$number\r\n"] },
        sub { ["GET http://www.example.test/absolute/$number HTTP/1.1\r\n$host\r\n",
                "X-Target: /absolute/$number\r\n"] },
        sub { ["DELETE /engine/$number HTTP/1.1\r\n${host}Expect: 100-continue\r\n"
                    . "Content-Length: 0\r\n\r\n", "X-Target: /engine/$number\r\n"] },
    )[$number % 11]->();
}

behaviour 'pipelined requests of both lanes are answered in order', @engine, sub {
    my ($t) = @_;
    my ($lanes, $up) = mixed($t);
    # Not those with Expect: httpd closes behind them.
    my @requests = map { request_of_kind($_) } grep { $_ % 11 != 10 } 1 .. 60;
    my $all = join('', map { $_->[0] } @requests) . "GET /last HTTP/1.1\r\n$close";
    my %ways = ('in one segment' => [$all], 'request by request' => [$all =~ /(.+?\r\n\r\n|.+)/gs],
        'in pieces of 1000' => [unpack '(a1000)*', $all],
        'in pieces of 7' => [unpack '(a7)*', $all]);
    my $before = 0;
    for my $way (sort keys %ways) {
        my $answer = $lanes->answer('engine', $ways{$way});
        my ($at, $missing) = (0, '');
        for my $request (@requests) {
            my $found = index $answer, $request->[1], $at;
            ($at, $missing) = $found < 0 ? ($at, $missing || $request->[0])
                                         : ($found + length $request->[1], $missing);
        }
        is($missing, '', "$way: every answer is there, in order");
        is(scalar(() = $answer =~ m{HTTP/1\.1 200 }g), 1 + @requests, "$way: none is doubled");
        like($answer, qr/\[eof\]\z/, "$way: a clean end");
        my @seen = $up->requests;
        is(scalar(@seen) - $before, 1 + grep({ $_->[0] !~ m{/static/} } @requests),
            "$way: as many at the upstream");
        $before = @seen;
    }
    my %served;
    $served{ (split / /)[0] }++ for $t->access_log;
    cmp_ok($served{$_} // 0, '>', 20, "served by: $_") for qw(engine pipeline -);
};

behaviour 'a request byte by byte', @engine, sub {
    my ($t) = @_;
    my ($lanes) = mixed($t);
    my $all = join '', map { request_of_kind($_)->[0] } 0 .. 8;
    same($lanes, 'bytes', [split //, "${all}GET /last HTTP/1.1\r\n$close"], 10);
};

behaviour 'what is malformed ends the connection behind the answers before it', @engine, sub {
    my ($t) = @_;
    my ($lanes, $up) = mixed($t);
    my $good = join '', map { request_of_kind($_)->[0] } 1 .. 7;
    my $more = "GET /never HTTP/1.1\r\n$close";
    my %bad = (
        'blank before colon' => "GET / HTTP/1.1\r\n${host}X : y\r\n\r\n",
        'NUL' => "GET /\0 HTTP/1.1\r\n$host\r\n",
        'two lengths' => "POST / HTTP/1.1\r\n${host}Content-Length: 1\r\n"
            . "Content-Length: 2\r\n\r\nab",
        'no Host' => "GET / HTTP/1.1\r\n\r\n",
        'TLS' => "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\r\n\r\n",
        'no blank' => "GET\r\n\r\n",
    );
    for my $name (sort keys %bad) {
        my $answer = same($lanes, $name, $good . $bad{$name} . $more, 8);
        like($answer, qr{HTTP/1\.1 [45]\d\d (?!.*HTTP/1\.1 )}s, "$name: the last is an error");
    }
    is(scalar(grep { $_->target eq '/never' } $up->requests), 0, 'what follows is not served');
};

# Whatever comes before it, and whoever reads it.
behaviour 'a head that is cut off is never served', @engine, sub {
    my ($t) = @_;
    my ($lanes, $up) = mixed($t);
    for my $before ('', "\r\n", "\r\n\r\n", "\r\n\r\n\r\n",
        "GET /whole HTTP/1.1\r\n$host\r\n\r\n\r\n") {
        for my $path (qw(/engine /guarded)) {
            my $head = "GET $path HTTP/1.1\r\n${host}X-A: b\r\n\r\n";
            for my $length (1, 10, 20, 30, 43, 45, map { length($head) - $_ } reverse 1 .. 8) {
                $lanes->answer('engine', $before . substr($head, 0, $length), half => 1);
            }
        }
    }
    is_deeply([grep { $_ ne '/whole' } map { $_->target } $up->requests], [],
        'nothing of it reached the upstream');
};

behaviour 'bodies of any size and form, and requests behind them', @engine, sub {
    my ($t) = @_;
    my ($lanes) = mixed($t);
    for my $size (0, 1, 8_191, 16_384, 16_385, 70_000, 300_000) {
        my $body = substr 'abcdefghij' x 30_000, 0, $size;
        for my $target ('/engine', '/guarded') {
            my $bytes = "POST $target HTTP/1.1\r\n${host}Content-Length: $size\r\n\r\n$body";
            my @chunks = unpack '(a5000)*', $body;
            $bytes .= "PUT $target HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
                . chunked(grep { length } @chunks);
            my $client = $t->raw_client;
            $client->{duplex} = 1;
            $client->write("${bytes}GET /last HTTP/1.1\r\n$close");
            for my $name ('length', 'chunked') {
                my $response = $client->read_response;
                ok($response->body eq $body, "$target, $size bytes, $name");
            }
            is($client->read_response->header('X-Target'), '/last', 'the request behind them');
            $client->close;
        }
    }
    my $trailers = "POST /engine HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
        . "3;a=b\r\nabc\r\n0\r\nX-T: 1\r\n\r\nGET /last HTTP/1.1\r\n$close";
    same($lanes, 'trailers', $trailers, 2);
};

behaviour 'Expect: 100-continue', @engine, sub {
    my ($t) = @_;
    my ($lanes) = mixed($t, 'LimitRequestBody 1000');
    my $expect = "${host}Expect: 100-continue\r\n";
    for my $target ('/engine', '/guarded') {
        for my $lane (qw(pipeline engine)) {
            my $client = $t->raw_client(port => $lanes->port($lane));
            $client->write("POST $target HTTP/1.1\r\n${expect}Content-Length: 5\r\n\r\n");
            is($client->read_head->status, 100, "$lane, $target: 100");
            $client->write('abcde');
            is($client->read_response->body, 'abcde', 'then the answer');
            $client->close;
        }
        same($lanes, "$target: body at once",
            "POST $target HTTP/1.1\r\n${expect}Content-Length: 5\r\n\r\nabcde"
                . "GET /last HTTP/1.1\r\n$close");
        my $answer = same($lanes, "$target: too large",
            "POST $target HTTP/1.1\r\n${expect}Content-Length: 5000\r\n\r\n", 1);
        like($answer, qr{\AHTTP/1\.1 413 }, 'no 100 for what is refused anyway');
        same($lanes, "$target: HTTP/1.0 knows no 100",
            "POST $target HTTP/1.0\r\n${expect}Content-Length: 5\r\n\r\nabcde", 1);
        same($lanes, "$target: another expectation",
            "POST $target HTTP/1.1\r\n${host}Expect: x\r\nContent-Length: 5\r\n\r\nabcde", 1);
    }
};

behaviour 'persistence', @engine, sub {
    my ($t) = @_;
    my ($lanes) = mixed($t, 'MaxKeepAliveRequests 4');
    for my $path (qw(/engine /guarded)) {
        for my $fields ('', "Connection: close\r\n", "Connection: keep-alive\r\n",
            "Connection: Keep-Alive, x\r\n", "Connection: x, close\r\n",
            "Connection: x\r\nConnection: close\r\n", "Proxy-Connection: keep-alive\r\n") {
            for my $version ('1.0', '1.1') {
                for my $method (qw(GET HEAD)) {
                    my $request = "$method $path HTTP/$version\r\n$host$fields\r\n";
                    same($lanes, "$method HTTP/$version $path " . $fields =~ s/\r\n/ /gr,
                        "$request$request" . "GET $path HTTP/1.1\r\n$close");
                }
            }
        }
        same($lanes, 'as many as httpd allows', "GET $path HTTP/1.1\r\n$host\r\n" x 8, 5);
    }
    same($lanes, 'as many, both lanes', join('', map { "GET /$_ HTTP/1.1\r\n$host\r\n" }
        qw(engine guarded engine static/1 engine engine guarded)), 5);
    same($lanes, 'HTTP/1.0 without Host', "GET /engine HTTP/1.0\r\n\r\n", 1);
};

behaviour 'KeepAlive off', @engine, sub {
    my ($t) = @_;
    my ($lanes) = mixed($t, 'KeepAlive off');
    my $answer = same($lanes, 'one request', "GET /engine HTTP/1.1\r\n$host\r\n" x 3, 1);
    like($answer, qr/^Connection: close\r$/m, 'and says so');
};

behaviour 'KeepAliveTimeout ends a connection that is idle', @engine, sub {
    my ($t) = @_;
    my ($lanes) = mixed($t, 'KeepAliveTimeout 200ms');
    for my $path (qw(/engine /guarded /static/1)) {
        same($lanes, $path, "GET $path HTTP/1.1\r\n$host\r\n", 1);
    }
};

behaviour 'limits of heads', @engine, sub {
    my ($t) = @_;
    my ($lanes) = mixed($t, 'LimitRequestLine 200', 'LimitRequestFieldSize 100',
        'LimitRequestFields 10');
    my $next = "GET /last HTTP/1.1\r\n$close";
    # "GET / HTTP/1.1" is 14 bytes.
    for my $length (185 .. 188, 1_000, 20_000, 70_000) {
        same($lanes, "a line of $length", 'GET /' . 'x' x $length . " HTTP/1.1\r\n$host\r\n$next");
    }
    for my $length (10, 90 .. 100, 1_000, 20_000, 70_000) {
        same($lanes, "a field of $length",
            "GET / HTTP/1.1\r\n${host}X: " . 'y' x $length . "\r\n\r\n$next");
        same($lanes, "a name of $length",
            "GET / HTTP/1.1\r\n$host" . 'X' x $length . ": y\r\n\r\n$next");
        same($lanes, "folded to $length",
            "GET / HTTP/1.1\r\n${host}X: y\r\n " . 'z' x $length . "\r\n\r\n$next");
    }
    for my $count (8 .. 11, 500) {
        same($lanes, "$count fields more",
            "GET / HTTP/1.1\r\n$host" . join('', map { "X-$_: y\r\n" } 1 .. $count) . "\r\n$next");
        same($lanes, "$count fields of one name",
            "GET / HTTP/1.1\r\n$host" . "X: y\r\n" x $count . "\r\n$next");
    }
};

behaviour 'large heads, whole and in pieces', @engine, sub {
    my ($t) = @_;
    my ($lanes, $up) = mixed($t, 'LimitRequestFields 0', 'LimitRequestLine 100000',
        'LimitRequestFieldSize 100000');
    my $last = "GET /last HTTP/1.1\r\n$close";
    for my $size (20 * 1024, 70 * 1024, 90 * 1024) {
        for my $path ('/engine', '/guarded', '/static/1') {
            my $many = "GET $path HTTP/1.1\r\n$host"
                . join('', map { "X-$_: " . 'y' x 100 . "\r\n" } 1 .. $size / 107) . "\r\n";
            my $one = "GET $path HTTP/1.1\r\n${host}X: " . 'y' x $size . "\r\n\r\n";
            my $line = "GET $path?" . 'y' x $size . " HTTP/1.1\r\n$host\r\n";
            same($lanes, "$path, $size in many fields", "$many$last");
            same($lanes, "$path, $size in one field, in pieces", [unpack '(a3000)*', "$one$last"]);
            same($lanes, "$path, $size in the line, in pieces", [unpack '(a5000)*', "$line$last"]);
        }
    }
};

behaviour 'limits of bodies', @engine, sub {
    my ($t) = @_;
    my ($lanes, $up) = mixed($t, 'LimitRequestBody 100', '<Location /large>',
        'LimitRequestBody 5000', '</Location>');
    my $next = "GET /last HTTP/1.1\r\n$close";
    for my $path (qw(/engine /guarded /large)) {
        for my $size (99, 100, 101, 4_999, 5_001) {
            my $body = 'b' x $size;
            same($lanes, "$path, $size bytes",
                "POST $path HTTP/1.1\r\n${host}Content-Length: $size\r\n\r\n$body$next");
            my ($pipeline, $engine) = map { s/^(?:Content-Length|Proxy-Status): .*?\r\n//mgr }
                $lanes->answers("POST $path HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
                    . chunked(unpack '(a90)*', $body) . $next);
            is($engine, $pipeline, "$path, $size bytes chunked");
        }
    }
    is(scalar(grep { $_->complete && $_->target =~ m{^/[eg]} && length $_->body > 100 }
        $up->requests), 0, 'no large one reached the upstream whole');
};

behaviour 'what errors leave of the connection, also behind uploads', @engine, sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head) {
            return if $head->target =~ /gone/;
            $conn->read_body;
            $conn->respond($head->target =~ /(\d+)/, ['X-A' => 1], 'answer') or last;
        }
    });
    my $lanes = RProxy::Lanes->configure($t, ['RProxyErrorOverride on', 'ErrorDocument 404 "own"',
        'RProxyPass /open ' . $up->url . '/', 'RProxyPass /refused http://127.0.0.1:'
            . $t->refused_port . '/', 'ErrorDocument 503 /open/200']);
    $t->start;
    my $next = "GET /open/200 HTTP/1.1\r\n$close";
    for my $target ('/open/200', '/open/404', '/open/500', '/open/503',
        '/refused/', '/open/gone') {
        same($lanes, "$target: no body", "GET $target HTTP/1.1\r\n$host\r\n$next");
        # How much of a large one is read when the upstream goes is a matter of time.
        for my $size (10, $target eq '/open/gone' ? () : 100_000) {
            my $post = "POST $target HTTP/1.1\r\n${host}Content-Length: $size\r\n\r\n"
                . 'b' x $size;
            same($lanes, "$target: a body of $size", "$post$next");
        }
        my $chunks = "POST $target HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
            . chunked('abc', 'def');
        same($lanes, "$target: chunks", "$chunks$next");
    }
};

done_testing;
