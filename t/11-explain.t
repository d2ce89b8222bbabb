#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# httpd -t -D RPROXY_EXPLAIN tells what the configuration means.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

my @event = (lanes => ['event']);

# The printed lines of one server, without the header.
sub explained {
    my ($t, $server) = @_;
    my ($code, $output) = $t->httpd_test('-DRPROXY_EXPLAIN');
    is($code, 0, 'exit code') or diag($output);
    my ($section) = $output =~ /^$server.*\n((?: .*\n)*)/m;
    return wantarray ? split(/\n/, $section // '') : $output;
}

my $main = qr/main server /;
my $vhost = qr/virtual host www\.example\.test on 127\.0\.0\.1:\d+ /;

behaviour 'rules are listed in the order in which they are tried', lanes => ['engine'], sub {
    my ($t) = @_;
    $t->config('RProxyPass / http://127.0.0.1:1/ if=true', 'RProxyPass / http://127.0.0.1:2/',
        'RProxyPass /long/path http://127.0.0.1:3/', 'RProxyPass /w http://127.0.0.1:4/ weight=3',
        'RProxyPass /w http://127.0.0.1:5/ weight=1',
            'RProxyPassMatch ^/u/(.*)$ http://127.0.0.1:6/$1',
        '<Location /open>', 'RProxyPass !', '</Location>',
        '<LocationMatch ^/z>', 'RProxyPass http://127.0.0.1:7/', '</LocationMatch>',
        '<Location "/a b">', 'RProxyPass http://127.0.0.1:8/', '</Location>');
    my $file = $t->conf_file;
    my $condition = $t->config_line(qr/ if=true$/);
    my @expected = (
        ['regex ^/u/(.*)$ -> http://127.0.0.1:6/$1', 'RProxyPassMatch'],
        ['regex ^/z -> http://127.0.0.1:7/', 'RProxyPass http://127.0.0.1:7'],
        ['/long/path -> http://127.0.0.1:3/', 'RProxyPass /long'],
        ['/open is not proxied', 'RProxyPass !'],
        ['/a%20b -> http://127.0.0.1:8/', 'RProxyPass http://127.0.0.1:8'],
        ['/w -> http://127.0.0.1:4/, weight 3', 'RProxyPass /w http://127.0.0.1:4'],
        ['/w -> http://127.0.0.1:5/, weight 1', 'RProxyPass /w http://127.0.0.1:5'],
        ['/ -> http://127.0.0.1:1/, if true', 'RProxyPass / http://127.0.0.1:1'],
        ['/ -> http://127.0.0.1:2/', 'RProxyPass / http://127.0.0.1:2'],
    );
    my $number = 0;
    my @lines = map {
        my $lane = $_->[0] !~ / -> / ? '' : $_->[0] =~ m{^/ ->}
            ? "; pipeline lane, parked; not the engine: if=true ($file:$condition)"
            : '; engine lane';
        '  ' . ++$number . ". $_->[0]$lane ($file:" . $t->config_line(qr/^\Q$_->[1]\E/) . ')';
    } @expected;
    is_deeply([explained($t, $vhost)], \@lines);
};

behaviour 'rules in sections are listed with their section', @event, sub {
    my ($t) = @_;
    $t->config('<Location /app>', '<If "-n %{QUERY_STRING}">', 'RProxyPass http://127.0.0.1:1/',
        '</If>',
        '</Location>', '<Directory /srv>', 'RProxyPass http://127.0.0.1:2/', '</Directory>',
        '<If true>', 'RProxyPass /x !', '</If>');
    my @lines = explained($t, $vhost);
    is(shift @lines, '  no rules');
    like(shift @lines, qr/in sections/);
    like(shift @lines,
        qr{^  - <If "-n %\{QUERY_STRING\}">: /app -> http://127\.0\.0\.1:1/; pipeline});
    like(shift @lines, qr{^  - <Directory /srv>: /srv/ -> http://127\.0\.0\.1:2/; pipeline});
    like(shift @lines, qr{^  - <If true>: /x is not proxied \(});
};

behaviour 'each server is listed, with what it has from the main server', @event, sub {
    my ($t) = @_;
    $t->server_config('RProxyPass /common http://127.0.0.1:1/',
        'RProxyPass /own http://127.0.0.1:2/');
    $t->config('RProxyPass /own http://127.0.0.1:3/');
    $t->vhost('bare.example.test', []);
    my @main = explained($t, $main);
    like($main[0], qr{1\. /common -> http://127\.0\.0\.1:1/.*:\d+\)$});
    like($main[1], qr{2\. /own -> http://127\.0\.0\.1:2/.*:\d+\)$});
    my @vhost = explained($t, $vhost);
    is(@vhost, 2);
    like($vhost[0], qr{/common -> .*, from the main server\)$});
    like($vhost[1], qr{/own -> http://127\.0\.0\.1:3/.*:\d+\)$});
    my @bare = explained($t, qr/virtual host bare\.example\.test on /);
    is(@bare, 2);
    like($_, qr/, from the main server\)$/) for @bare;
    my $output = explained($t, $main);
    ok(index($output, 'host www.') < index($output, 'host bare.'), 'in the order written');
};

behaviour 'settings merge key by key, and those that differ from the default are listed', @event,
    sub {
    my ($t) = @_;
    $t->server_config('RProxyTimeout connect=2s total=2h', 'RProxyRetry tries=3 on=error,503',
        'RProxyKeepAlive max=3 age=1h', 'RProxyPreserveHost off', 'RProxyForwarded both',
        'RProxyAllowTarget http://127.0.0.1:1/', 'RProxyEncodedSlashes reject');
    $t->config('RProxyTimeout idle=1500ms total=0', 'RProxyRetry methods=all',
        'RProxyKeepAlive max=5',
        'RProxyForwarded x', 'RProxyUpgrade any', 'RProxyErrorOverride 404 502',
        'RProxyIgnoreClientAbort on', 'RProxyTLS verify=off',
        'RProxyAllowTarget http://127.0.0.1:2/x');
    my $file = quotemeta $t->conf_file;
    my $line = $t->config_line(qr/^RProxyTLS/);
    my @lines = map { /^  setting: (.*)/ ? $1 : () } explained($t, $vhost);
    is_deeply([grep { !/RProxyTLS/ } @lines], [
        'RProxyTimeout connect=2s idle=1500ms', 'RProxyRetry tries=3 on=error,503 methods=all',
        'RProxyKeepAlive max=5 idle=1min requests=0 age=1h', 'RProxyErrorOverride 404 502',
        'RProxyUpgrade any', 'RProxyPreserveHost off', 'RProxyIgnoreClientAbort on',
        'RProxyEncodedSlashes reject', 'RProxyAllowTarget http://127.0.0.1:2/x',
    ]);
    like((grep { /RProxyTLS/ } @lines)[0], qr/^RProxyTLS of $file:$line, certificates unverified$/);
};

behaviour 'RProxyTLS takes the keys that it does not set from the section around it', @event, sub {
    my ($t) = @_;
    $t->server_config('RProxyTLS verify=off');
    $t->config('RProxyTLS name=app.test');
    my $line = $t->config_line(qr/^RProxyTLS name/);
    is_deeply([explained($t, $vhost)],
        ['  no rules',
            "  setting: RProxyTLS of " . $t->conf_file . ":$line, certificates unverified"]);
};

behaviour 'a server with defaults only has no settings to list', @event, sub {
    my ($t) = @_;
    $t->config('RProxyPass / http://127.0.0.1:1/');
    is(scalar(grep { /setting:/ } explained($t, $vhost)), 0);
};

behaviour 'the lane says how requests wait, and why', lanes => ['event', 'worker', 'prefork'], sub {
    my ($t) = @_;
    $t->config('RProxyPass / http://127.0.0.1:1/');
    my ($rule) = explained($t, $vhost);
    my $capacity = explained($t,
        $vhost) =~ /^a child takes up to 16 \+ 200 x 16 = 3216 connections/m;
    if ($t->lane eq 'event') {
        like($rule, qr/pipeline lane, parked; not the engine: RProxyEngine off \(/);
        ok($capacity, 'capacity of a child');
        return;
    }
    like($rule, qr/pipeline lane, blocking: \w[^(]+; not the engine: the MPM is not event \(/);
    ok(!$capacity, 'no such capacity');
};

behaviour 'who serves HTTP/2 is told where Protocols names it', lanes => ['engine'], sub {
    my ($t) = @_;
    my $http2 = sub {
        my ($server, @lines) = @_;
        $t->config(@lines);
        return join '; ', map { /^  HTTP\/2: (.*)/ ? $1 : () } explained($t, $server);
    };
    is($http2->($vhost, 'RProxyPass / http://127.0.0.1:1/'), '', 'HTTP/1.1 only');
    is($http2->($vhost, 'Protocols h2c'), 'engine', 'h2c');
    my @order = map { /^  (\S+)/ ? $1 : () } explained($t, $vhost);
    is_deeply(\@order, ['1.', 'HTTP/2:'], 'behind the rules');
    is($http2->($vhost, 'Protocols h2', 'RProxyPass /x !'), 'not offered (/x is not proxied ('
            . $t->conf_file . ':' . $t->config_line(qr/^RProxyPass \/x/) . '))');
    is($http2->($main), '', 'the main server');
    $t->server_config('Protocols h2 http/1.1');
    is($http2->($main), '', 'the main server without rules');
    $t->server_config('RProxyPass /y http://127.0.0.1:1/');
    like($http2->($main), qr/^not offered \(no rule is for \/, /, 'the main server with rules');
    $t->extra_modules('http2');
    like($http2->($vhost), qr/^mod_http2 \(\/x is not proxied \([^()]*\)\)$/, 'mod_http2');
};

behaviour 'nothing is explained unasked', @event, sub {
    my ($t) = @_;
    $t->config('RProxyPass / http://127.0.0.1:1/');
    my ($code, $output) = $t->httpd_test;
    is($code, 0);
    unlike($output, qr/pipeline/);
};

done_testing;
