#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Metrics: the page is what Prometheus reads, its numbers are those of the traffic, and it is there
# when nothing else is. Read on the socket of RProxyMetricsListen, but where it says otherwise.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Encode ();

my @lanes = (lanes => [qw(event prefork engine engine-h2)]);

# ---- the page -----------------------------------------------------------------------------------

# The samples of a page: { 'name{labels}' => value }; dies on what isn't the text format, or what
# its conventions forbid.
sub samples {
    my ($text) = @_;
    die "no line end at the end\n" if $text !~ /\n\z/;
    eval { Encode::decode('UTF-8', my $copy = $text, Encode::FB_CROAK()); 1 } or die "not UTF-8\n";
    my (%seen, %value, %bounds, $family, $type, $helped);
    for my $line (split /\n/, $text) {
        if ($line =~ /^# HELP ([a-z][a-z0-9_]*) ([A-Z1].*\.)$/) {
            die "$1 again\n" if $seen{$1}++;
            ($family, $type, $helped) = ($1, undef, 1);
            next;
        }
        if ($line =~ /^# TYPE (\S+) (counter|gauge|histogram)$/) {
            die "type of $1 without help\n" if !$helped || $1 ne $family;
            ($type, $helped) = ($2, 0);
            die "$family is a $type by its name\n" if ($type eq 'counter') != ($family =~ /_total$/);
            die "no unit in $family\n" if $type eq 'histogram' && $family !~ /_seconds$/;
            die "$family\n" if $family =~ /_(?:count|sum|bucket|info_total|milli\w*|ms|kb)$/;
            next;
        }
        my ($name, $labels, $number) = $line =~ /^([a-z0-9_]+)
            (\{[a-z_]+="(?:[^"\\]|\\[\\"n])*"(?:,[a-z_]+="(?:[^"\\]|\\[\\"n])*")*\})?
            [ ](-?\d+(?:\.\d+)?)$/x or die "not a sample: $line\n";
        $labels //= '';
        die "$line is not of $family\n" if !$type
            || ($type eq 'histogram' ? $name !~ /^\Q$family\E_(?:bucket|sum|count)$/ : $name ne $family);
        die "again: $name$labels\n" if exists $value{"$name$labels"};
        die "below 0: $line\n" if $number < 0;
        my %names;
        $labels =~ s/(?:^\{|\G,)([a-z_]+)="(?:[^"\\]|\\.)*"/die "$1 twice: $line\n" if $names{$1}++; $&/ge;
        $value{"$name$labels"} = $number;
        next if $type ne 'histogram';
        die "le of $line\n" if ($name =~ /_bucket$/) != ($labels =~ /[{,]le="[^"]+"\}$/);
        if ($name =~ /_bucket$/) {
            my ($of, $le) = $labels =~ /^(.*?),?le="([^"]+)"\}$/;
            push @{ $bounds{"$family$of"} }, [$le, $number];
        }
        if ($name =~ /_count$/) {
            my $buckets = delete $bounds{ $family . $labels =~ s/\}$//r };
            my ($last, $below) = (0, 0);
            for (@$buckets) {
                my $le = $_->[0] eq '+Inf' ? 9e99 : $_->[0];
                die "buckets of $name$labels\n" if $le <= $last || $_->[1] < $below;
                ($last, $below) = ($le, $_->[1]);
            }
            die "$name$labels isn't that of +Inf\n" if $last < 9e98 || $below != $number;
        }
    }
    die "buckets without count: @{[keys %bounds]}\n" if %bounds;
    return \%value;
}

# A server with the socket; lines as server_config.
sub start {
    my ($t, @lines) = @_;
    $t->{metrics_port} = $t->refused_port;
    $t->server_config("RProxyMetricsListen $t->{metrics_port}", @lines);
    return $t->start;
}

sub metrics_client { my ($t) = @_; return $t->raw_client(port => $t->{metrics_port}, tls => 0) }

sub metrics {
    my ($t) = @_;
    my $response = metrics_client($t)->request('GET', '/metrics');
    die 'status ' . $response->status . "\n" if $response->status ne '200';
    return samples($response->body);
}

# Waits until series (with the labels of the rule or member in front) have these values.
sub wait_for_values {
    my ($t, $prefix, $labels, %expected) = @_;
    my %got;
    eval {
        wait_until('the counts', undef, sub {
            my $all = metrics($t);
            %got = map {
                my ($name, $more) = /^(\w+)(?:\{(.*)\})?$/;
                ($_ => $all->{"${prefix}_$name\{" . join(',', $labels, $more // ()) . '}'});
            } keys %expected;
            return !grep { ($got{$_} // 'none') ne $expected{$_} } keys %expected;
        });
    } or diag($@);
    is_deeply(\%got, \%expected, "$prefix $labels");
    return;
}

sub route_labels {
    my ($t, $route, $target) = @_;
    return 'server="' . $t->host . ':' . $t->port . "\",route=\"$route\",target=\"$target\"";
}

# ---- numbers ------------------------------------------------------------------------------------

behaviour 'requests, bytes, errors and times of each rule and member', @lanes, sub {
    my ($t) = @_;
    my $lane = $t->is_engine ? 'engine' : 'pipeline';
    my $up = $t->upstream->on_request(sub {
        my ($request) = @_;
        return [$request->method eq 'POST' ? 404 : 200, [], 'x' x 10];
    });
    my $gone = 'http://127.0.0.1:' . $t->refused_port . '/';
    my $target = $up->url . '/base';
    $t->config("RProxyPass /app $target", "RProxyPass /gone $gone", 'RProxyPass / balancer://pool/');
    start($t, '<RProxyBalancer pool>', 'RProxyMember ' . $up->url, "RProxyMember $gone backup",
        '</RProxyBalancer>');
    is($t->get('/app/')->status, 200, 'answered') for 1 .. 3;
    is($t->request('POST', '/app/x', { body => 'abcde' })->status, 404, 'refused by the upstream');
    is($t->get('/gone/')->status, 502, 'refused by the proxy') for 1, 2;
    is($t->get('/')->status, 200, 'from the pool') for 1 .. 5;

    wait_for_values($t, 'rproxy_route', route_labels($t, '/app', $target),
        qq(requests_total{lane="$lane",code="2xx"}) => 3,
        qq(requests_total{lane="$lane",code="4xx"}) => 1,
        qq(requests_total{lane="$lane",code="5xx"}) => 0,
        requests_in_flight => 0, retries_total => 0, request_body_bytes_total => 5,
        response_body_bytes_total => 40, first_byte_seconds_count => 4, duration_seconds_count => 4,
        'duration_seconds_bucket{le="+Inf"}' => 4);
    wait_for_values($t, 'rproxy_route', route_labels($t, '/gone', $gone),
        qq(requests_total{lane="$lane",code="5xx"}) => 2, retries_total => 2,
        'errors_total{reason="connection-refused"}' => 2, first_byte_seconds_count => 0,
        duration_seconds_count => 2);
    wait_for_values($t, 'rproxy_route', route_labels($t, '/', 'balancer://pool/'),
        qq(requests_total{lane="$lane",code="2xx"}) => 5);
    wait_for_values($t, 'rproxy_pool', 'pool="pool"', requests_total => 5, requests_in_flight => 0,
        retries_total => 0, 'members{state="up"}' => 2, 'unserved_total{reason="no-member"}' => 0,
        'attempts_total{code="2xx"}' => 5, 'attempts_total{code="none"}' => 0,
        request_body_bytes_total => 0, response_body_bytes_total => 50,
        first_byte_seconds_count => 5, duration_seconds_count => 5);
    wait_for_values($t, 'rproxy_member', 'pool="pool",member="' . $up->url . '"',
        'requests_total{code="2xx"}' => 5, 'requests_total{code="none"}' => 0,
        requests_in_flight => 0, retries_total => 0, response_body_bytes_total => 50,
        first_byte_seconds_count => 5, duration_seconds_count => 5, 'state{state="up"}' => 1,
        'state{state="down"}' => 0);

    my $all = metrics($t);
    my $app = route_labels($t, '/app', $target);
    is($all->{"rproxy_route_connections_opened_total{$app}"}
            + $all->{"rproxy_route_connections_reused_total{$app}"}, 4, 'each had a connection');
    is($all->{'rproxy_pool_connections_opened_total{pool="pool"}'}
            + $all->{'rproxy_pool_connections_reused_total{pool="pool"}'}, 5, 'the pool');
    cmp_ok($all->{"rproxy_route_duration_seconds_sum{$app}"}, '>=',
        $all->{"rproxy_route_first_byte_seconds_sum{$app}"}, 'the end comes last');
    ok(exists $all->{'rproxy_tunnels_open'}, 'the whole process');
};

behaviour 'retries, failures and ejections of members', lanes => [qw(prefork engine)], sub {
    my ($t) = @_;
    my $up = $t->upstream->reply_with(200, [], 'x');
    my $gone = 'http://127.0.0.1:' . $t->refused_port;
    $t->config('RProxyPass / balancer://pool/', 'RProxyPass /off balancer://off/');
    start($t, '<RProxyBalancer pool>', "RProxyMember $gone", 'RProxyMember ' . $up->url,
        'RProxyMethod first', 'RProxyOutlier errors=2 eject=1h max-eject=1h', '</RProxyBalancer>',
        '<RProxyBalancer off>', 'RProxyMember ' . $up->url . ' state=down', '</RProxyBalancer>');
    is($t->get('/')->status, 200, 'answered') for 1 .. 4;
    wait_for_values($t, 'rproxy_pool', 'pool="pool"', requests_total => 4, retries_total => 2,
        'members{state="ejected"}' => 1, 'errors_total{reason="connection-refused"}' => 2,
        'attempts_total{code="2xx"}' => 4, 'attempts_total{code="none"}' => 2,
        first_byte_seconds_count => 4, duration_seconds_count => 6);
    wait_for_values($t, 'rproxy_member', "pool=\"pool\",member=\"$gone\"",
        'errors_total{reason="connection-refused"}' => 2, 'requests_total{code="none"}' => 2,
        ejections_total => 1, 'state{state="ejected"}' => 1, retries_total => 0);
    wait_for_values($t, 'rproxy_member', 'pool="pool",member="' . $up->url . '"',
        'requests_total{code="2xx"}' => 4, retries_total => 2, ejections_total => 0);
    wait_for_values($t, 'rproxy_route', route_labels($t, '/', 'balancer://pool/'),
        retries_total => 2);

    is($t->get('/off/')->status, 503, 'no member');
    wait_for_values($t, 'rproxy_pool', 'pool="off"', 'unserved_total{reason="no-member"}' => 1,
        'unserved_total{reason="pool-busy"}' => 0, 'members{state="down"}' => 1);
    wait_for_values($t, 'rproxy_route', route_labels($t, '/off', 'balancer://off/'),
        'errors_total{reason="no-member"}' => 1, connections_opened_total => 0,
        duration_seconds_count => 1);
};

behaviour 'what a pool has counted stays when members go', lanes => [qw(event engine)], sub {
    my ($t) = @_;
    my @up = map { $t->upstream->reply_with(200, [], 'x') } 0, 1;
    my $members = sub {
        my $new = $t->file('members.json.new',
            '{"members": [' . join(', ', map { '{"url": "' . $_->url . '"}' } @_) . ']}');
        my $path = $new =~ s/\.new$//r;
        rename $new, $path or die "$path: $!\n";
        return $path;
    };
    my $file = $members->(@up);
    $t->config('RProxyPass / balancer://pool/');
    start($t, '<RProxyBalancer pool>', "RProxyMembersFile $file interval=50ms",
        '</RProxyBalancer>');
    wait_for_values($t, 'rproxy_pool', 'pool="pool"', 'members{state="up"}' => 2);
    is($t->get('/')->status, 200, 'answered') for 1 .. 6;
    my %counted = ('attempts_total{code="2xx"}' => 6, response_body_bytes_total => 6,
        duration_seconds_count => 6);
    wait_for_values($t, 'rproxy_pool', 'pool="pool"', %counted);
    $members->($up[1]);
    wait_for_values($t, 'rproxy_pool', 'pool="pool"', %counted, 'members{state="up"}' => 1);
    $members->();
    wait_for_values($t, 'rproxy_pool', 'pool="pool"', %counted, 'members{state="up"}' => 0);
    $t->graceful;
    wait_for_values($t, 'rproxy_pool', 'pool="pool"', %counted);
};

behaviour 'rules of sections and of .htaccess files', lanes => ['event'], sub {
    my ($t) = @_;
    my $target = $t->upstream->reply_with(200, [], 'x')->url . '/';
    $t->file('htdocs/own/.htaccess', "RProxyPass $target\n");
    $t->config("RProxyAllowTarget $target", "<If \"%{QUERY_STRING} == 'if'\">",
        "RProxyPass $target", '</If>');
    start($t);
    is($t->get($_)->status, 200, $_) for '/own/', '/?if', '/x?if';
    wait_for_values($t, 'rproxy_route', 'server="",route="(other)",target=""',
        'requests_total{lane="pipeline",code="2xx"}' => 1);
    my ($if) = grep { /^rproxy_route_requests_in_flight\{.*route="<If / } keys %{ metrics($t) };
    my ($labels) = $if =~ /\{(.*)\}/;
    wait_for_values($t, 'rproxy_route', $labels,
        'requests_total{lane="pipeline",code="2xx"}' => 2);
};

behaviour 'odd names are escaped', lanes => ['event'], sub {
    my ($t) = @_;
    my $target = $t->upstream->reply_with(200, [], 'x')->url . '/';
    $t->config("RProxyPassMatch \"^/a\\\"b\\.c\" $target", "RProxyPassMatch \"^/\xff\" $target");
    start($t);
    my @routes = sort map { /^rproxy_route_retries_total\{.*?route="(~.*?)",target=/ ? $1 : () }
        keys %{ metrics($t) };
    is_deeply(\@routes, ['~ ^/a\"b\\\\.c', "~ ^/\xef\xbf\xbd"],
        'quotes, backslashes, and what is no UTF-8');
};

# ---- restarts and children ----------------------------------------------------------------------

behaviour 'counts are those of all children, over graceful restarts',
    lanes => [qw(event prefork engine)], sub {
    my ($t) = @_;
    my $lane = $t->is_engine ? 'engine' : 'pipeline';
    my $target = $t->upstream->reply_with(200, [], 'x')->url . '/';
    $t->config("RProxyPass / $target");
    start($t);
    my $labels = route_labels($t, '/', $target);
    $t->parallel(3, sub { $t->get('/')->status for 1 .. 10 });
    wait_for_values($t, 'rproxy_route', $labels,
        qq(requests_total{lane="$lane",code="2xx"}) => 30);
    $t->graceful;
    is($t->get('/')->status, 200, 'a further one');
    wait_for_values($t, 'rproxy_route', $labels,
        qq(requests_total{lane="$lane",code="2xx"}) => 31, duration_seconds_count => 31,
        requests_in_flight => 0);
};

behaviour 'a child that is killed leaves nothing in flight', lanes => ['engine'], sub {
    my ($t) = @_;
    $t->tolerate(qr/exit signal Killed/);
    my $up = $t->upstream->on_request(sub { $_[1]->wait_for('never') })->expect_errors;
    my $target = $up->url . '/';
    $t->config("RProxyPass / $target");
    start($t);
    my $labels = route_labels($t, '/', $target);
    my $client = $t->raw_client;
    $client->begin('GET', '/');
    wait_for_values($t, 'rproxy_route', $labels, requests_in_flight => 1);
    my ($old) = $t->children;
    kill 'KILL', $old;
    wait_until('another child', undef, sub { return grep { $_ != $old } $t->children });
    wait_for_values($t, 'rproxy_route', $labels, requests_in_flight => 0);
};

# ---- RProxyMetricsListen ------------------------------------------------------------------------

behaviour 'it answers while no worker is free', lanes => [qw(worker prefork)], sub {
    my ($t) = @_;
    $t->mpm_config($t->mpm eq 'prefork'
        ? (StartServers => 2, ServerLimit => 2, MaxRequestWorkers => 2, MinSpareServers => 1,
            MaxSpareServers => 2)
        : (ThreadsPerChild => 2, MaxRequestWorkers => 2, ServerLimit => 1, MinSpareThreads => 1,
            MaxSpareThreads => 2));
    my $up = $t->upstream->on_request(sub { $_[1]->wait_for('go'); return [200, [], 'x'] });
    my $target = $up->url . '/';
    $t->config("RProxyPass / $target");
    start($t);
    my @busy = map { $t->raw_client->begin('GET', "/$_") } 1 .. 3;
    wait_for_values($t, 'rproxy_route', route_labels($t, '/', $target), requests_in_flight => 2);
    ok(metrics($t), 'and again') for 1 .. 3;
    $up->signal('go') for @busy;
    for my $exchange (@busy) {
        is($exchange->response->status, 200, 'all are answered');
        $exchange->close;
    }
};

behaviour 'strict and patient with nobody', lanes => ['prefork'], sub {
    my ($t) = @_;
    $t->mpm_config(StartServers => 1, MinSpareServers => 1, MaxSpareServers => 1, ServerLimit => 1,
        MaxRequestWorkers => 1);
    start($t);
    my $said = sub {
        my ($bytes) = @_;
        my $client = metrics_client($t);
        $client->write($bytes);
        return $client->read_eof;
    };
    my $get = "GET /metrics HTTP/1.1\r\nHost: x\r\n";
    like($said->("$get\r\n"), qr{^HTTP/1\.1 200 OK\r\n.*\n# HELP }s, 'the page, then the end');
    like($said->("GET /metrics?x HTTP/1.0\r\n\r\n"), qr{^HTTP/1\.1 200 .*\n# HELP }s, 'HTTP/1.0');
    my $head = $said->("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    like($head, qr{^HTTP/1\.1 200 .*^Content-Type: text/plain; version=0\.0\.4; charset=utf-8\r$}ms,
        'HEAD');
    like($head, qr{^Content-Length: [1-9]\d+\r\n(?:\S.*\r\n)*\r\n\z}m, 'has no body');
    my %refused = (
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n" => 404,
        "GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n" => 404,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" => 405,
        "GET /metrics HTTP/1.1\r\n\r\n" => 400,
        "GET /metrics HTTP/1.1\nHost: x\n\n" => 400,
        "GET /metrics\r\n\r\n" => 400,
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" => 400,
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" => 400,
        "${get}Content-Length: 3\r\n\r\nabc" => 400,
        "${get}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" => 400,
        $get . 'X: ' . 'x' x 20_000 => 431,
        $get . "X: y\r\n" x 100 . "\r\n" => 400,
    );
    for my $bytes (sort keys %refused) {
        my $name = substr($bytes, 0, 40) =~ s/[^ -~]+/ /gr;
        like($said->($bytes), qr{^HTTP/1\.1 $refused{$bytes} .*^Connection: close\r$}ms,
            "$refused{$bytes} for $name");
    }
    like($said->("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), qr/^Allow: GET, HEAD\r$/m, 'Allow');

    my @idle = map { metrics_client($t) } 1 .. 30;
    $_->write('GET /met') for @idle;
    ok(metrics($t), 'others are served while many say nothing');
    is($idle[-1]->read_eof, '', 'and who says nothing has to go');
    ok(metrics($t), 'the end');
};

behaviour 'the socket stays over graceful restarts, and goes with its line', lanes => ['event'],
    sub {
    my ($t) = @_;
    start($t);
    ok(metrics($t), 'before');
    my $other = $t->refused_port;
    s/^RProxyMetricsListen \K.*/$other/ for @{ $t->{config}{server} };
    $t->graceful;
    eval { metrics_client($t); fail('the old port is still open'); 1 }
        or like($@, qr/refused/, 'the old port is closed');
    $t->{metrics_port} = $other;
    ok(metrics($t), 'the new one is open');
};

behaviour 'what is wrong with its address', lanes => ['event'], sub {
    my ($t) = @_;
    my %wrong = (
        '*:9145' => qr/is no IP address.* 0\.0\.0\.0:9145 or \[::\]:9145/,
        'localhost:9145' => qr/is no IP address; names are not resolved/,
        '127.0.0.1' => qr/write a port, or an address and a port/,
        '0' => qr/write a port/,
        '127.0.0.1:70000' => qr/write a port/,
    );
    my @before = @{ $t->{config}{server} };
    for my $text (sort keys %wrong) {
        @{ $t->{config}{server} } = (@before, "RProxyMetricsListen $text");
        my ($code, $output) = $t->httpd_test;
        like($output, $wrong{$text}, $text);
    }
    @{ $t->{config}{server} } = (@before, 'RProxyMetricsListen ' . $t->port);
    eval { $t->start };
    like($t->error_log, qr/RP0440: RProxyMetricsListen can't listen on 127\.0\.0\.1:\d+: choose/,
        'a port that is taken');
};

# ---- SetHandler rproxy-metrics ------------------------------------------------------------------

behaviour 'as a page of the server', lanes => [qw(event engine-tls)], sub {
    my ($t) = @_;
    my $up = $t->upstream->reply_with(200, [], 'x');
    $t->extra_modules(qw(deflate filter));
    $t->config('<Location /metrics>', 'SetHandler rproxy-metrics', 'SetOutputFilter DEFLATE',
        'Require all granted', '</Location>', '<Location /secret>', 'SetHandler rproxy-metrics',
        'Require all denied', '</Location>', 'RProxyPass / ' . $up->url . '/');
    $t->start;
    is($t->get('/')->body, 'x', 'the rest is proxied');
    my $response = $t->get('/metrics');
    is($response->header('Content-Type'), 'text/plain; version=0.0.4; charset=utf-8', 'its type');
    ok(samples($response->body)->{'rproxy_info{version="0.1.0"}'}, 'the page');
    is($t->get('/metrics', 'Accept-Encoding' => 'gzip')->header('Content-Encoding'), 'gzip',
        'compressed');
    my $head = $t->request('HEAD', '/metrics');
    is_deeply([$head->status, $head->body], [200, ''], 'HEAD');
    my $post = $t->request('POST', '/metrics', { body => 'x' });
    is_deeply([$post->status, $post->header('Allow') =~ /GET/], [405, 1], 'no other method');
    is($t->get('/secret')->status, 403, 'guarded by Require');
    is(scalar $up->requests, 1, 'the upstream got none of it');
};

done_testing;
