#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The manager's API: what it shows, what it changes, and whom it refuses.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Pools;
use RProxy::Test;
use JSON::PP ();
use MIME::Base64 ();

# The same with every MPM: the sanitized run, which is slow, leaves one out.
without_lanes 'prefork' if $ENV{RPROXY_SANITIZED};

my @lanes = (lanes => [qw(event prefork engine engine-h2)]);
my @one = (lanes => [qw(event)]);

my $JSON = JSON::PP->new->utf8->canonical;
my $MERGE = 'application/merge-patch+json';

sub location { my ($path, @lines) = @_; return ("<Location $path>", @lines, '</Location>') }

# A server with a pool of these lines, and the manager at /m.
sub start {
    my ($t, $pool, @manager) = @_;
    $t->server_config('<RProxyBalancer app>', @$pool, '</RProxyBalancer>',
        'RProxyPass / balancer://app/',
        location('/m', 'SetHandler rproxy-manager', @manager));
    return $t->start;
}

# Asks the manager over HTTP/1.1, in every lane; the answer has {json}. The body is data, or text.
sub api {
    my ($t, $method, $path, $body, @headers) = @_;
    my $text = ref $body ? $JSON->encode($body) : $body;
    unshift @headers, 'Content-Type' => $method eq 'PATCH' ? $MERGE : 'application/json'
        if defined $text && !grep { lc eq 'content-type' } @headers;
    $path = "/m/api/$path" if $path !~ m{^/};
    my $client = $t->raw_client;
    my $response = $client->request($method, $path, { headers => \@headers, body => $text });
    $client->close;
    $response->{json} = $response->body ne '' && $JSON->decode($response->body);
    return $response;
}

# The status of a refusal, and whether it says why as it should.
sub refused {
    my ($response, $status, $detail, $name) = @_;
    subtest $name => sub {
        is($response->status, $status);
        is($response->header('Content-Type'), 'application/problem+json');
        is($response->{json}{status}, $status);
        like($response->{json}{detail}, $detail);
    };
    return;
}

sub id { my ($url) = @_; return MIME::Base64::encode_base64url($url) }
sub path { my ($url, $more) = @_; return 'pools/app/members/' . id($url) . ($more // '') }

# All children use what has been changed from the next request on.
sub are {
    my ($t, $wanted, $name) = @_;
    my $sum = 0;
    $sum += $_ for values %$wanted;
    return is_deeply(spread($t, $sum), $wanted, $name);
}

behaviour 'members are shown and changed', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    my ($a, $b, $c) = map { $_->url } @up;
    $t->server_config('RProxyZone z');
    my @pool = ("RProxyMember $a zone=z",
        "RProxyMember $b weight=2 zone=z route=b max=9 slowstart=1500ms");
    start($t, \@pool, 'RProxyManager changes=on');
    are($t, { 0 => 2, 1 => 4 }, 'as configured');

    my $all = api($t, 'GET', '/m/api/');
    is($all->status, 200);
    is($all->header('Content-Type'), 'application/json');
    is($all->header('Cache-Control'), 'no-store');
    ok($all->{json}{changes}, 'may change');
    is(scalar @{ $all->{json}{pools} }, 1, 'one pool');
    my $pool = api($t, 'GET', 'pools/app');
    is($pool->header('ETag'), $pool->{json}{etag}, 'ETag of the pool');
    is($pool->{json}{href}, '/m/api/pools/app');
    is($pool->{json}{traffic}{requests}, 6, 'requests of the pool');
    is($pool->{json}{states}{up}, 2, 'two are up');
    my $member = $pool->{json}{members}[1];
    is($member->{href}, '/m/api/' . path($b), 'the id is the URL');
    is_deeply($member->{values}, { state => 'up', weight => 2, max => 9, zone => 'z', route => 'b',
        backup => JSON::PP::false, slowstart => '1500ms' }, 'its values');
    is_deeply([@{ $member->{traffic} }{qw(requests failures in_flight)},
            $member->{traffic}{answers}{'2xx'}, $member->{latency}{total}{count}],
        [4, 0, 0, 4, 4], 'its traffic');
    like($member->{latency}{total}{p99}, qr/^\d+(?:\.\d+)?$/, 'and percentiles');

    my $patched = api($t, 'PATCH', path($a), { weight => 3 });
    is($patched->status, 200);
    is_deeply($patched->{json}{values}{weight}, 3);
    is_deeply($patched->{json}{overridden}, ['weight']);
    isnt($patched->header('ETag'), $pool->header('ETag'), 'the pool has another ETag');
    are($t, { 0 => 6, 1 => 4 }, 'another weight');
    is(api($t, 'PATCH', path($b), { state => 'drain' })->{json}{why}, 'set by 127.0.0.1');
    are($t, { 0 => 3 }, 'drained');
    is(api($t, 'PATCH', path($b), { state => undef })->{json}{state}, 'up', 'null: as configured');

    my $put = api($t, 'PUT', path($c), { weight => 5, zone => 'z' });
    is($put->status, 201, 'a new one');
    is($put->header('Location'), '/m/api/' . path($c));
    are($t, { 0 => 3, 1 => 2, 2 => 5 }, 'it is used');
    my $again = api($t, 'PUT', path($c), { weight => 5, zone => 'z' });
    is($again->status, 200, 'once more');
    is_deeply($again->{json}{values}, $put->{json}{values}, 'makes no difference');
    is(api($t, 'PUT', path($c), { zone => 'z' })->{json}{values}{weight}, 1, 'PUT sets all values');
    is(api($t, 'DELETE', path($b))->status, 204);
    are($t, { 0 => 6, 2 => 2 }, 'one of the configuration is removed');
    is(api($t, 'GET', path($b))->{json}{state}, 'removed', 'and still shown');
    is(api($t, 'DELETE', path($b))->status, 204, 'again');

    my ($diff) = @{ api($t, 'GET', 'diff')->{json}{pools} };
    is_deeply({ map { $_->{url} => $_->{difference} } @{ $diff->{members} } },
        { $a => 'changed', $b => 'removed', $c => 'added' }, 'what differs');
    is_deeply((grep { $_->{url} eq $a } @{ $diff->{members} })[0]{values},
        { weight => { configured => 1, now => 3 } }, 'and how');
    $t->graceful;
    are($t, { 0 => 6, 2 => 2 }, 'after a graceful restart');

    is(api($t, 'POST', path($b, '/forget'), {})->{json}{removed}, JSON::PP::false, 'it is back');
    are($t, { 0 => 6, 1 => 4, 2 => 2 }, 'and used');
    is(api($t, 'DELETE', path($c))->status, 204);
    is(api($t, 'GET', path($c))->status, 404, 'an added one is gone');
    is(api($t, 'POST', 'pools/app/forget', {})->status, 200);
    are($t, { 0 => 2, 1 => 4 }, 'all as configured');
    is_deeply(api($t, 'GET', 'diff')->{json}, { pools => [] }, 'nothing differs');

    my @entries = @{ api($t, 'GET', 'journal')->{json}{entries} };
    is_deeply([map { $_->{number} } @entries], [reverse 1 .. @entries], 'the journal');
    like($entries[-1]{what}, qr/^\Q$a\E: weight=3/);
    is_deeply([@{ $entries[-1] }{qw(pool from who)}], ['app', 'api', '127.0.0.1']);
    like($entries[-1]{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    like($t->error_log, qr/RP0436: pool app: \Q$a\E changed: weight=3, by 127\.0\.0\.1/, 'the log');
};

behaviour 'conditions', @one, sub {
    my ($t) = @_;
    my ($a, $b) = map { $_->url } members($t, 2);
    start($t, ["RProxyMember $a"], 'RProxyManager changes=on');
    my $old = api($t, 'GET', 'pools/app')->header('ETag');
    is(api($t, 'GET', 'pools/app', undef, 'If-None-Match' => $old)->status, 304);
    is(api($t, 'GET', path($a), undef, 'If-None-Match' => qq("x", W/$old))->status, 304, 'in a list');
    my $new = api($t, 'PATCH', path($a), { weight => 2 }, 'If-Match' => $old);
    is($new->status, 200, 'the current version');
    is(api($t, 'GET', 'pools/app', undef, 'If-None-Match' => $old)->status, 200, 'another one');
    my $log = @{ api($t, 'GET', 'journal')->{json}{entries} };
    for my $case (['PATCH', path($a), { weight => 4 }], ['PUT', path($a), {}], ['PUT', path($b), {}],
        ['DELETE', path($a)], ['POST', path($a, '/forget'), {}], ['POST', 'pools/app/forget', {}],
        ['POST', 'pools/app/members', { url => $b }]) {
        refused(api($t, @$case[0, 1], $case->[2], 'If-Match' => $old), 412,
            qr/another version.*GET it again/, "$case->[0] $case->[1] with an old ETag");
    }
    is(api($t, 'PATCH', path($a), { weight => 4 }, 'If-Match' => 'W/' . $new->header('ETag'))->status,
        412, 'a weak one is not enough');
    is(api($t, 'PUT', path($b), {}, 'If-Match' => '*')->status, 412, 'only if it is there');
    refused(api($t, 'PUT', path($a), {}, 'If-None-Match' => '*'), 412, qr/there already/,
        'only if it is not there');
    is(@{ api($t, 'GET', 'journal')->{json}{entries} }, $log, 'nothing was changed');
    is(api($t, 'PUT', path($b), {}, 'If-None-Match' => '*')->status, 201);
    is(api($t, 'DELETE', path($b), undef, 'If-Match' => '*')->status, 204);
};

behaviour 'what can not be done is refused with a remedy', lanes => [qw(event engine)], sub {
    my ($t) = @_;
    my ($a, $b) = map { $_->url } members($t, 2);
    start($t, ["RProxyMember $a"], 'RProxyManager changes=on');
    my $new = path('http://127.0.0.9:1');
    my @bad = (
        ['PATCH', path($a), { weight => 0 }, qr/weight "0": write a whole number from 1 to 1000/],
        ['PATCH', path($a), { weight => '3' }, qr/"weight" is a whole number/],
        ['PATCH', path($a), { max => -1 }, qr/max "-1": write a whole number/],
        ['PATCH', path($a), { backup => 1 }, qr/"backup" is true or false/],
        ['PATCH', path($a), { state => 'off' }, qr/write up, drain or down/],
        ['PATCH', path($a), { zone => 'a b' }, qr/zone "a b": write 1 to 64/],
        ['PATCH', path($a), { slowstart => 'soon' }, qr/slowstart=soon.*write a time/],
        ['PATCH', path($a), { wait => 1 }, qr/"wait" is unknown; there are state, weight,/],
        ['PATCH', path($a), { url => $a }, qr/"url" is unknown/],
        ['PATCH', path($a), '{"weight": 2', qr/no JSON: line 1, column \d+: /],
        ['PATCH', path($a), '{"weight": 2, "weight": 3}', qr/no JSON: .*duplicate/],
        ['PATCH', path($a), '[]', qr/no object/],
        ['PATCH', path($a), qq({"zone": "\xff"}), qr/no JSON: .*decode byte 0xff/],
        ['POST', 'pools/app/members', {}, qr/no "url"; send/],
        ['POST', 'pools/app/members', { url => 'ftp://a' }, qr/ftp:.*unknown scheme/],
        ['POST', 'pools/app/members', { url => "http://\x{e4}" }, qr/characters that don't belong/],
        ['POST', 'pools/app/members', { url => 'http://' . 'a' x 600 }, qr/limit is 511/],
        ['PUT', 'pools/app/members/x+y', {}, qr/the id is none/],
        ['PUT', $new, { url => $a }, qr/not that of the id/],
        ['POST', path($a, '/forget'), { all => 1 }, qr/takes no keys/],
    );
    for my $case (@bad) {
        my ($method, $path, $body, $detail) = @$case;
        refused(api($t, $method, $path, $body), 400, $detail,
            "$method " . (ref $body ? $JSON->encode($body) : $body));
    }
    refused(api($t, 'POST', 'pools/app/members', { url => uc($a) . '/' }), 409,
        qr/is a member of the pool already/, 'the same member in other words');
    refused(api($t, 'GET', 'pools/none'), 404, qr/no pool "none"; GET/, 'no such pool');
    refused(api($t, $_, $new, $_ eq 'PATCH' ? {} : undef), 404, qr/no member with this id/,
        "$_: no such member") for qw(GET PATCH DELETE);
    refused(api($t, 'GET', 'members'), 404, qr/no such path; it has/, 'no such path');
    is(api($t, 'DELETE', path($a))->status, 204);
    refused(api($t, 'PATCH', path($a), { weight => 2 }), 409, qr/is removed; PUT it/, 'removed');
    is(api($t, 'PUT', path($a), { weight => 2 })->status, 201, 'PUT brings it back');

    my $method = api($t, 'DELETE', 'pools/app');
    refused($method, 405, qr/DELETE isn't possible here/, 'DELETE of a pool');
    is($method->header('Allow'), 'OPTIONS, GET, HEAD');
    is(api($t, 'OPTIONS', path($a))->header('Allow'), 'OPTIONS, GET, HEAD, PUT, PATCH, DELETE');
    my $head = $t->raw_client->request('HEAD', '/m/api/pools/app');
    is($head->status . $head->body, 200, 'HEAD');
    my $big = '{"zone": "' . 'a' x 65600 . '"}';
    refused(api($t, 'PATCH', path($a), $big), 413, qr/more than 64 KiB/, 'too much');
    my $chunked = $t->raw_client->request('PATCH', '/m/api/' . path($a),
        { headers => ['Content-Type' => $MERGE], body => $big, chunked => 1 });
    is($chunked->status, 413, 'too much in chunks');
    for my $type ('text/plain', 'application/x-www-form-urlencoded', 'application/jsonp') {
        refused(api($t, 'POST', 'pools/app/members', qq({"url":"$b"}), 'Content-Type' => $type), 415,
            qr{send JSON with Content-Type: application/json}, $type);
    }
    my $patch = api($t, 'PATCH', path($a), '{}', 'Content-Type' => 'text/json');
    is($patch->status, 415);
    is($patch->header('Accept-Patch'), 'application/merge-patch+json, application/json');
};

behaviour 'other sites change nothing', lanes => [qw(event tls)], sub {
    my ($t) = @_;
    my ($a) = map { $_->url } members($t, 1);
    start($t, ["RProxyMember $a"], 'RProxyManager changes=on');
    my ($weight, $scheme, $host) = (1, $t->scheme, $t->host);
    my $elsewhere = qr/another site asks for this/;
    my @refused = (['Sec-Fetch-Site' => 'cross-site'], ['Sec-Fetch-Site' => 'same-site'],
        ['Sec-Fetch-Site' => 'cross-site', Origin => "$scheme://$host"],
        [Origin => 'null'], [Origin => 'https://evil.test'], [Origin => "$scheme://$host.evil.test"],
        [Origin => "$scheme://$host:8443"], [Origin => ''], [Origin => "ftp://$host"],
        $t->is_tls ? [Origin => "http://$host"] : ());
    for my $headers (@refused) {
        refused(api($t, 'PATCH', path($a), { weight => 9 }, @$headers), 403, $elsewhere, "@$headers");
    }
    refused(api($t, 'DELETE', path($a), undef, @{ $refused[0] }), 403, $elsewhere, 'DELETE');
    is(api($t, 'GET', path($a), undef, @{ $refused[0] })->{json}{values}{weight}, 1, 'GET may be');
    for my $headers (['Sec-Fetch-Site' => 'same-origin'], ['Sec-Fetch-Site' => 'none'],
        [Origin => "$scheme://$host"], [Origin => "$scheme://\U$host:" . ($t->is_tls ? 443 : 80)],
        [Origin => "https://$host"], []) {
        my $response = api($t, 'PATCH', path($a), { weight => ++$weight }, @$headers);
        is($response->{json}{values}{weight}, $weight, "@$headers");
    }
};

behaviour 'who may change', lanes => [qw(event engine)], sub {
    my ($t) = @_;
    my ($a) = map { $_->url } members($t, 1);
    $t->extra_modules(qw(auth_basic authn_file));
    my $users = $t->file('users', join '', map { "$_:" . crypt('x', 'ab') . "\n" }
            'alice', 'bob', "J\xc3\xb6rg", "\xff\"<\\");
    my @login = ('SetHandler rproxy-manager', 'AuthType Basic', 'AuthName m',
        'AuthBasicProvider file', "AuthUserFile $users", 'Require valid-user');
    $t->server_config(location('/expr', @login, q(RProxyManager changes="%{REMOTE_USER} != 'bob'")),
        location('/limit', @login[0 .. 4], 'RProxyManager changes=on', '<LimitExcept GET HEAD>',
            'Require user alice', '</LimitExcept>', '<Limit GET HEAD>', 'Require valid-user',
            '</Limit>'),
        location('/off', @login, 'RProxyManager changes=off'),
        location('/ip', 'SetHandler rproxy-manager', 'Require ip 192.0.2.0/24',
            'RProxyManager changes=on'));
    start($t, ["RProxyMember $a"]);
    my $as = sub {
        my ($user, $method, $place, @rest) = @_;
        return api($t, $method, "/$place/api/" . path($a), $method eq 'GET' ? undef : { @rest },
            $user ? (Authorization => 'Basic ' . MIME::Base64::encode_base64("$user:x", '')) : ());
    };
    my $login = sub {
        my ($client, $place, $method) = ($t->raw_client, @_);
        return $client->request($method, "/$place/api/" . path($a),
            $method eq 'GET' ? {} : { headers => ['Content-Type' => 'application/json'],
                body => '{}' })->status;
    };
    is($login->($_, 'GET'), 401, "/$_ wants a user") for qw(expr limit off);
    is($login->('limit', 'PUT'), 401, '/limit wants a user for changes');
    is($login->('ip', 'GET'), 403, 'another address');
    my $off = qr/may look, but not change anything; RProxyManager/;
    is($as->($_, 'GET', 'expr')->status, 200, "$_ reads") for qw(alice bob);
    is($as->('alice', 'PATCH', 'expr', weight => 2)->status, 200, 'alice changes');
    refused($as->('bob', 'PATCH', 'expr', weight => 3), 403, $off, 'bob does not');
    refused($as->('alice', 'PATCH', 'off', weight => 3), 403, $off, 'nobody does where it is off');
    refused(api($t, 'PATCH', path($a), { weight => 3 }), 403, $off, 'nor where nothing is said');
    is($as->('bob', 'GET', 'limit')->status, 200);
    is($as->('alice', 'PATCH', 'limit', weight => 4)->status, 200, 'alice in <LimitExcept>');
    is($login->('limit', 'PATCH'), 401, 'nobody');
    my $bob = $t->raw_client->request('PATCH', '/limit/api/' . path($a), { body => '{}',
        headers => ['Content-Type' => $MERGE, Authorization => 'Basic '
                . MIME::Base64::encode_base64('bob:x', '')] });
    is($bob->status, 401, 'bob not');
    my %changes = map { $_ => $as->($_, 'GET', 'expr')->{json} } qw(alice bob);
    is($changes{alice}{values}{weight}, 4, 'two changes');
    is($changes{alice}{who}, 'alice 127.0.0.1', 'by whom');
    is($as->("J\xc3\xb6rg", 'PATCH', 'expr', weight => 5)->{json}{who}, "J\x{f6}rg 127.0.0.1", 'UTF-8');
    is($as->("\xff\"<\\", 'PATCH', 'expr', weight => 6)->{json}{who}, '?"<\ 127.0.0.1', 'escaped');
    my @who = map { $_->{who} } @{ api($t, 'GET', 'journal')->{json}{entries} };
    is_deeply(\@who, ['?"<\ 127.0.0.1', "J\x{f6}rg 127.0.0.1", ('alice 127.0.0.1') x 2], 'journal');
};

behaviour 'a Location may have any path', @one, sub {
    my ($t) = @_;
    my ($a) = map { $_->url } members($t, 1);
    my @manager = ('SetHandler rproxy-manager', 'Require local');
    $t->server_config('<RProxyBalancer api>', "RProxyMember $a", '</RProxyBalancer>',
        location('/api/m', @manager),
        '<Location "/a b&c">', @manager, '</Location>');
    start($t, ["RProxyMember $a"]);
    is(api($t, 'GET', '/api/m/api/pools/api')->{json}{href}, '/api/m/api/pools/api');
    is(api($t, 'GET', '/m/api/pools/api')->{json}{name}, 'api');
    is(api($t, 'GET', '/a%20b&c/api/pools/app')->{json}{href}, '/a%20b&c/api/pools/app');
    is(scalar @{ api($t, 'GET', "/m/$_")->{json}{pools} }, 2, $_) for qw(api api/ api/pools);
    is(api($t, 'GET', '/m/api/x')->status, 404);
};

behaviour 'RProxyManager has its place', @one, sub {
    my ($t) = @_;
    my @cases = (
        [['RProxyManager changes=on'], qr/move it into the <Location>/],
        [[location('/m', 'RProxyManager')], qr/needs changes=on, changes=off/],
        [[location('/m', 'RProxyManager on')], qr/RProxyManager: "on" is no key=value/],
        [[location('/m', 'RProxyManager changes="%{REMOTE_USER"')], qr/write on, off, or an express/],
        [[location('/m', ('RProxyManager changes=on') x 2)], qr/stands twice/],
        [[location('/m', '<Limit PUT>', 'RProxyManager changes=on', '</Limit>')], qr/<Limit/],
    );
    for my $case (@cases) {
        $t->clear_config;
        $t->server_config(@{ $case->[0] });
        my ($code, $output) = $t->httpd_test;
        isnt($code, 0);
        like($output, $case->[1]);
    }
};

done_testing;
