#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# How long the engine waits for a client: mod_reqtimeout's limits, where it is loaded, and Timeout.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Lanes;

my @engine = (lanes => [qw(engine engine-tls)]);
my $host = "Host: www.example.test\r\n";

sub proxied {
    my ($t, $lines, @modules) = @_;
    my $up = $t->upstream;
    $up->expect_errors;
    $up->on_request(sub { return [200, [], $_[0]->body] });
    $t->extra_modules('headers', @modules);
    my $lanes = RProxy::Lanes->configure($t, [@$lines, '<Location /guarded>',
        'Header set X-Guard 1', '</Location>', 'RProxyPass / ' . $up->url . '/']);
    $t->access_format('%{local}p %>s %X "%r"');
    $t->start;
    return $lanes;
}

# What is sent before the client stops.
my %STALLED = (
    'a line' => "GET /engine HT",
    'fields' => "GET /engine HTTP/1.1\r\n${host}X-A: b",
    'fields of the pipeline\'s' => "GET /guarded HTTP/1.1\r\n${host}X-A: b",
    'malformed' => "GET /engine HTTP/1.1\r\n${host}X-A : b\r\nX",
    'second request' => "GET /engine HTTP/1.1\r\n$host\r\nGET /engine HTTP/1.1\r\n$host",
    'second request of the pipeline\'s' => "GET /guarded HTTP/1.1\r\n$host\r\nGET /en",
);
my %STALLED_BODY = (
    'a body' => "POST /engine HTTP/1.1\r\n${host}Content-Length: 10\r\n\r\nabc",
    'no byte of a body' => "POST /engine HTTP/1.1\r\n${host}Content-Length: 10\r\n\r\n",
    'a chunk' => "POST /engine HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    'a body of the pipeline\'s' => "POST /guarded HTTP/1.1\r\n${host}Content-Length: 10\r\n\r\nabc",
);

# All at once in both lanes: what is compared is the answer and the line of the log.
sub compare_stalled {
    my ($t, $lanes, $stalled) = @_;
    my @names = sort keys %$stalled;
    my %clients = map {
        my $name = $_;
        map {
            my $client = $t->raw_client(port => $lanes->port($_));
            $client->write($stalled->{$name});
            ("$_ $name" => $client);
        } qw(pipeline engine);
    } @names;
    my @lines;
    for my $name (@names) {
        my ($pipeline, $engine) = map {
            my $answer = eval { $lanes->plain($clients{"$_ $name"}->read_eof) } // "$_ waits on, ";
            $answer =~ s/^(?:Content-Length|Proxy-Status): .*?\r\n//mg if $answer =~ / 40[08] /;
            $answer . ($clients{"$_ $name"}->closed // 'open');
        } qw(pipeline engine);
        is($engine, $pipeline, $name);
    }
    my $answers = sub {
        my ($lane) = @_;
        my $port = $lanes->port($lane);
        return sort map { /^$port (.*)/ ? $1 : () } $t->access_log;
    };
    wait_until('as many lines in the log', undef, sub {
        my ($pipeline, $engine) = map { scalar(() = $answers->($_)) } qw(pipeline engine);
        return $engine >= $pipeline;
    });
    is_deeply([$answers->('engine')], [$answers->('pipeline')], 'the same lines in the log');
    return;
}

behaviour 'RequestReadTimeout header', @engine, sub {
    my ($t) = @_;
    my $lanes = proxied($t, ['RequestReadTimeout header=1'], 'reqtimeout');
    # Over TLS mod_reqtimeout does not see what mod_ssl has read already.
    my %stalled = map { $_ => $STALLED{$_} } grep { !$t->is_tls || !/second/ } keys %STALLED;
    compare_stalled($t, $lanes, \%stalled);
    like($lanes->answer('engine', $STALLED{$_}), qr{HTTP/1\.1 408 [^\0]*\[eof\]\z}, "408: $_")
        for grep { /^fields|^second request$/ } sort keys %STALLED;
};

behaviour 'RequestReadTimeout body', @engine, sub {
    my ($t) = @_;
    my $lanes = proxied($t, ['RequestReadTimeout body=1'], 'reqtimeout');
    compare_stalled($t, $lanes, \%STALLED_BODY);
    # httpd says that they are malformed.
    my $trailers = "POST /engine HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
        . "0\r\nX: y\r\n";
    like($lanes->answer('engine', $trailers), qr{\AHTTP/1\.1 408 }, 'trailers');
};

# A byte now and then must not help.
behaviour 'a rate that is not kept', @engine, sub {
    my ($t) = @_;
    my $lanes = proxied($t, ['RequestReadTimeout header=1-2,MinRate=500'], 'reqtimeout');
    for my $lane (qw(pipeline engine)) {
        my $client = $t->raw_client(port => $lanes->port($lane));
        $client->write("GET /engine HTTP/1.1\r\n$host");
        my $sent = 0;
        while ($client->quiet_for(0.2) && $sent < 50) {
            $client->write("X-$sent: y\r\n") or last;
            $sent++;
        }
        like($client->read_eof, qr{\AHTTP/1\.1 408 |\A\z}, "$lane: it ends");
        cmp_ok($sent, '<', 50, 'before long');
    }
};

behaviour 'Timeout without mod_reqtimeout', @engine, sub {
    my ($t) = @_;
    my $lanes = proxied($t, ['Timeout 1', 'KeepAliveTimeout 1']);
    compare_stalled($t, $lanes, \%STALLED);
};

# Over TLS, as the kernel keeps others to itself until they send something.
behaviour 'a client that only connects', lanes => ['engine-tls'], sub {
    my ($t) = @_;
    my $lanes = proxied($t, ['RequestReadTimeout header=1'], 'reqtimeout');
    compare_stalled($t, $lanes, { 'nothing' => '', 'an empty line' => "\r\n" });
};

done_testing;
