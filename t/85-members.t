#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Members that come, go and change while the server runs: from a file, from DNS.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::DNS;
use RProxy::Pools;
use RProxy::Test;
use MIME::Base64 ();

# The same with every MPM: the sanitized run, which is slow, leaves one out.
without_lanes 'prefork' if $ENV{RPROXY_SANITIZED};

my @lanes = (lanes => [qw(event prefork engine engine-h2)]);
my @two = (lanes => [qw(event engine)]);

# Upstreams on one port of 127.0.0.1, 127.0.0.2 ..., which say their number and the Host they saw.
sub addresses {
    my ($t, $count) = @_;
    my ($port, @up);
    for my $number (1 .. $count) {
        push @up, $t->upstream(host => "127.0.0.$number", $port ? (port => $port) : ())
            ->on_request(sub {
                return [200, ['X-Member' => $number, 'X-Host' => $_[0]->header('Host')], 'x'];
            });
        $port = $up[0]->port;
    }
    return ($port, @up);
}

sub pool {
    my ($t, @lines) = @_;
    $t->server_config('<RProxyBalancer app>', @lines, '</RProxyBalancer>',
        'RProxyPass / balancer://app/');
    return;
}

# Replaces members.json as a whole: nobody is to see a part of it.
sub write_text {
    my ($t, $text) = @_;
    my $new = $t->file('members.json.new', $text);
    my $path = $new =~ s/\.new$//r;
    rename $new, $path or die "$path: $!\n";
    return $path;
}

sub write_members {
    my ($t, @members) = @_;
    return write_text($t, '{"members": [' . join(', ', map { "{$_}" } @members) . ']}');
}

sub by_url { my ($up, $more) = @_; return '"url": "' . $up->url . '"' . ($more ? ", $more" : '') }

behaviour 'members come, change and go with a file', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 4);
    my $file = write_members($t, by_url($up[0]), by_url($up[1], '"weight": 2'));
    pool($t, "RProxyMembersFile $file interval=50ms");
    $t->start;
    becomes($t, { 0 => 2, 1 => 4 }, 'those of the file');
    write_members($t, by_url($up[0]), by_url($up[1]), by_url($up[2], '"max": 5, "route": "c"'));
    becomes($t, { 0 => 2, 1 => 2, 2 => 2 }, 'one more, and another weight');
    write_members($t, by_url($up[0], '"state": "drain"'), by_url($up[2], '"backup": true'),
        by_url($up[3]));
    becomes($t, { 3 => 6 }, 'one is gone, one drained, one a backup');
    write_members($t);
    becomes($t, { 503 => 2 }, 'none');
    write_members($t, by_url($up[1]));
    becomes($t, { 1 => 2 }, 'one is back');
};

behaviour 'members of a file stand beside those of the configuration', @two, sub {
    my ($t) = @_;
    my @up = members($t, 2);
    my $file = write_members($t, by_url($up[0], '"weight": 7'), by_url($up[1]));
    pool($t, 'RProxyMember ' . $up[0]->url, "RProxyMembersFile $file interval=50ms");
    $t->start;
    becomes($t, { 0 => 3, 1 => 3 }, 'for one that stands in both the configuration counts');
    write_members($t);
    becomes($t, { 0 => 4 }, 'it stays when the file does not have it any more');
};

behaviour 'a broken file changes nothing', @two, sub {
    my ($t) = @_;
    my @up = members($t, 2);
    my $file = write_members($t, by_url($up[0]));
    pool($t, "RProxyMembersFile $file interval=50ms");
    $t->start;
    becomes($t, { 0 => 2 }, 'at first');
    my @broken = (
        ['{"members": [{"url": }]}', qr/line 1, column \d+: /],
        ['{"members": {}}', qr/there is no list "members"; write /],
        ['{"members": [{"weight": 2}]}', qr/member 1 has no "url"/],
        ['{"members": [{"url": "http://a", "wait": 1}]}', qr/member 1: "wait" is unknown; there/],
        ['{"members": [{"url": "http://a", "state": "off"}]}', qr/write up, drain or down/],
        ['', qr/line 1, column 0: /],
    );
    for my $case (@broken) {
        my ($text, $message) = @$case;
        my $offset = $t->log_size;
        write_text($t, $text);
        ok($t->wait_log(qr/RP0426: pool app: file \S+ .*those known last stay: .*$message/, undef,
                $offset), $text || 'an empty file');
        is_deeply(spread($t, 2), { 0 => 2 }, 'the last ones stay');
        write_members($t, by_url($up[0]));
        ok($t->wait_log(qr/RP0427: .*members are found again/, undef, $offset), 'whole again');
    }
    unlink $file;
    ok($t->wait_log(qr/RP0426: .*No such file/), 'without the file');
    is_deeply(spread($t, 2), { 0 => 2 }, 'the last ones stay');
    write_members($t, by_url($up[1]), '"url": "ftp://a"');
    ok($t->wait_log(qr{RP0428: .*ftp://a: .*unknown scheme}), 'one that is none is said');
    becomes($t, { 1 => 2 }, 'the other is taken');
};

behaviour 'requests go on while members change', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3, record => 0);
    my $file = write_members($t, map { by_url($_) } @up);
    pool($t, "RProxyMembersFile $file interval=50ms", 'RProxyMethod hash uri');
    $t->start;
    wait_until('the members', undef, sub { return !exists spread($t, 1)->{503} });
    my $done = $t->directory . '/done';
    my $load = $t->background(sub {
        my %got;
        until (-e $done) {
            $got{ $t->get('/' . int rand 100)->status }++;
        }
        return \%got;
    });
    for my $round (1 .. 6) {
        write_members($t, map { by_url($up[$_], '"weight": ' . (1 + $round % 3)) }
                grep { $_ != $round % 3 } 0 .. 2);
        my $gone = $round % 3;
        wait_until("member $gone to be gone", undef, sub {
            my $got = spread($t, 12);
            return !$got->{$gone} && keys %$got;
        });
    }
    open my $fh, '>', $done or die "$done: $!\n";
    close $fh;
    my ($got) = $load->result;
    is_deeply([keys %$got], [200], 'all are answered');
};

behaviour 'what a file has found stays over a graceful restart, and when a child is killed', @two, sub {
    my ($t) = @_;
    $t->tolerate(qr/exit signal Killed/);
    my @up = members($t, 2);
    my $file = write_members($t, map { by_url($_) } @up);
    pool($t, "RProxyMembersFile $file interval=50ms");
    $t->start;
    becomes($t, { 0 => 2, 1 => 2 }, 'at first');
    $t->graceful;
    is_deeply(spread($t, 4), { 0 => 2, 1 => 2 }, 'at once after the restart');
    my @children = $t->children;
    kill 'KILL', @children;
    wait_until('another child', undef, sub {
        return scalar grep { my $pid = $_; !grep { $_ == $pid } @children } $t->children;
    });
    write_members($t, by_url($up[1]));
    becomes($t, { 1 => 4 }, 'another child looks after the file');
};

behaviour 'each address of a name is a member', @lanes, sub {
    my ($t) = @_;
    my $dns = RProxy::DNS->start($t);
    my ($port, @up) = addresses($t, 3);
    $dns->set('app.test', ttl => 1, A => ['127.0.0.1', '127.0.0.2']);
    pool($t, "RProxyMember http://app.test:$port weight=2", 'RProxyResolve ttl=auto min=100ms');
    $t->server_config('RProxyResolver ' . $dns->address, 'RProxyPreserveHost off');
    $t->start;
    becomes($t, { 1 => 2, 2 => 2 }, 'both');
    is($t->get('/')->header('X-Host'), "app.test:$port", 'they are called by the name');
    $dns->set('app.test', ttl => 1, A => ['127.0.0.2', '127.0.0.3']);
    becomes($t, { 2 => 2, 3 => 2 }, 'another address');
    $dns->set('app.test', code => 'SERVFAIL');
    ok($t->wait_log(qr/RP0426: pool app: DNS of \S+: no members are found/), 'DNS fails');
    is_deeply(spread($t, 4), { 2 => 2, 3 => 2 }, 'the last addresses stay');
    $dns->set('app.test', ttl => 1, A => ['127.0.0.1']);
    becomes($t, { 1 => 2 }, 'and are replaced when it answers again');
};

behaviour 'a service of DNS: weights, and backups by priority', @two, sub {
    my ($t) = @_;
    my $dns = RProxy::DNS->start($t);
    my @up = members($t, 3);
    $dns->set("node$_.test", A => ['127.0.0.1']) for 0 .. 2;
    my $set = sub {
        $dns->set('_http._tcp.app.test', ttl => 3600,
            SRV => [map { [$_->[1], $_->[2], $up[$_->[0]]->port, "node$_->[0].test"] } @_]);
    };
    $set->([0, 10, 30], [1, 10, 10], [2, 20, 5]);
    pool($t, 'RProxyMember http+srv://_http._tcp.app.test',
        'RProxyResolve ttl=auto resolvers=' . $dns->address);
    $t->server_config('RProxyResolver ' . $dns->address . ' min-ttl=100ms max-ttl=200ms');
    $t->start;
    becomes($t, { 0 => 6, 1 => 2 }, 'by weight');
    $_->refuse for @up[0, 1];
    wait_until('the backup', undef, sub { return (keys %{ spread($t, 1) })[0] eq 2 });
    $set->([2, 10, 0]);
    becomes($t, { 2 => 4 }, 'alone');
};

# As the balancer hashes a member's line.
sub stanza {
    my ($text) = @_;
    no warnings 'portable';
    my $mul = sub { use integer; return $_[0] * $_[1] };
    my $add = sub { use integer; return $_[0] + $_[1] };
    my $hash = $mul->(length $text, 0x9e3779b97f4a7c15);
    for my $word (unpack 'Q<*', $text . "\0" x (-length($text) % 8)) {
        $hash = $mul->($hash ^ $word, 0xff51afd7ed558ccd) & ~0;
        $hash ^= $hash >> 32;
    }
    $hash = $add->($hash, 0x9e3779b97f4a7c15) & ~0;
    $hash = $mul->($hash ^ $hash >> 30, 0xbf58476d1ce4e5b9) & ~0;
    $hash = $mul->($hash ^ $hash >> 27, 0x94d049bb133111eb) & ~0;
    return sprintf '%016x', $hash ^ $hash >> 31;
}

behaviour 'changes are kept while the server is stopped, those of edited lines are not', @two, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    my @lines = map { $_->url . ' weight=1' } @up;
    my $path = $t->directory . '/state/members.json';
    my $entry = sub {
        my ($number, $stanza) = @_;
        return '{"pool": "app", "url": "' . $up[$number]->url . "\", \"stanza\": \"$stanza\", "
            . '"added": false, "removed": false, "who": "tester", "changed": 1, '
            . '"set": {"weight": 3}}';
    };
    $t->file('state/members.json', '{"format": 1, "members": ['
            . join(', ', $entry->(0, stanza($lines[0])), $entry->(1, stanza('edited'))) . ']}');
    chmod 0777, $t->directory . '/state' or die "chmod: $!\n";
    pool($t, map { "RProxyMember $_" } @lines);
    $t->server_config("RProxyStateFile $path");
    $t->start;
    is_deeply(spread($t, 10), { 0 => 6, 1 => 2, 2 => 2 }, 'one has the weight of the file');
    ok($t->wait_log(qr/RP0425: pool app: \Q@{[ $up[1]->url ]}\E: back to the configuration/),
        'one was edited');
    my $kept = sub {
        open my $fh, '<', $path or return '';
        local $/;
        return <$fh>;
    };
    wait_until('the file to be written', undef, sub { return $kept->() !~ /"weight".*"weight"/s });
    like($kept->(), qr/"weight": 3/, 'with the change that is left');
    $t->stop;
    $t->start;
    is_deeply(spread($t, 10), { 0 => 6, 1 => 2, 2 => 2 }, 'it stays over a stop');
    $t->stop;
    $t->file('state/members.json', '{"format": 1, "members": [');
    $t->start;
    ok($t->wait_log(qr/RP0430: RProxyStateFile \S+ can't be read, .* line 1, column /), 'broken');
    is_deeply(spread($t, 3), { 0 => 1, 1 => 1, 2 => 1 }, 'members are as configured');
};

# The manager at /m, which may change members.
sub manager {
    my ($t) = @_;
    $t->server_config('<Location /m>', 'SetHandler rproxy-manager', 'RProxyManager changes=on',
        '</Location>');
    return;
}

sub change {
    my ($t, $method, $url, $body) = @_;
    my $client = $t->raw_client;
    my $response = $client->request($method,
        '/m/api/pools/app/members/' . MIME::Base64::encode_base64url($url),
        { headers => ['Content-Type' => 'application/json'], body => $body });
    $client->close;
    like($response->status, qr/^20[04]$/, "$method $url");
    return;
}

# A directory for RProxyStateFile: (its path, what is in it).
sub state_file {
    my ($t) = @_;
    my $path = $t->directory . '/state/members.json';
    $t->file('state/made', '');
    chmod 0777, $t->directory . '/state' or die "chmod: $!\n";
    $t->server_config("RProxyStateFile $path");
    return sub {
        open my $fh, '<', $path or return '';
        local $/;
        return <$fh>;
    };
}

behaviour 'changes of members that were found are kept while the server is stopped', @two, sub {
    my ($t) = @_;
    my @up = members($t, 4);
    my $file = write_members($t, map { by_url($_) } @up);
    pool($t, "RProxyMembersFile $file interval=50ms");
    manager($t);
    my $kept = state_file($t);
    $t->start;
    becomes($t, { 0 => 2, 1 => 2, 2 => 2, 3 => 2 }, 'as found');
    change($t, 'PATCH', $up[0]->url, '{"state": "drain"}');
    change($t, 'PATCH', $up[1]->url, '{"weight": 3}');
    change($t, 'PATCH', $up[2]->url, '{"weight": 5, "max": 100}');
    change($t, 'DELETE', $up[3]->url);
    wait_until('the file', undef, sub { return $kept->() =~ /"removed": true/ });
    $t->stop;
    my @edited = ((map { by_url($_) } @up[0, 1]), by_url($up[2], '"weight": 2'), by_url($up[3]));
    write_members($t, @edited);
    for my $start (1, 2) {
        $t->start;
        becomes($t, { 1 => 6, 2 => 4 }, 'they hold, but for a value that the file has changed');
        $t->graceful;
        is_deeply(spread($t, 10), { 1 => 6, 2 => 4 }, 'also after a graceful restart');
        $t->stop;
    }
    like($kept->(), qr/"max": 100/, 'the other one stays');

    $t->start;
    becomes($t, { 1 => 6, 2 => 4 }, 'found again');
    write_members($t, @edited[1 .. 3]);
    wait_until('the file', undef, sub { return $kept->() !~ /"drain"/ });
    write_members($t, @edited);
    becomes($t, { 0 => 2, 1 => 6, 2 => 4 }, 'one that was away is new');
};

behaviour 'changes of an address are kept while the server is stopped', @two, sub {
    my ($t) = @_;
    my $dns = RProxy::DNS->start($t);
    my ($port, @up) = addresses($t, 3);
    $dns->set('app.test', ttl => 1, A => ['127.0.0.1', '127.0.0.2', '127.0.0.3']);
    pool($t, "RProxyMember http://app.test:$port", 'RProxyResolve ttl=auto min=100ms');
    $t->server_config('RProxyResolver ' . $dns->address);
    manager($t);
    my $kept = state_file($t);
    $t->start;
    becomes($t, { 1 => 2, 2 => 2, 3 => 2 }, 'as found');
    change($t, 'PATCH', "http://app.test:$port#127.0.0.2", '{"state": "drain"}');
    wait_until('the file', undef, sub { return $kept->() =~ /"drain"/ });
    $t->stop;
    $dns->set('app.test', code => 'SERVFAIL');
    $t->start;
    ok($t->wait_log(qr/RP0426: pool app: DNS of \S+: no members are found/), 'DNS fails at first');
    $dns->set('app.test', ttl => 1, A => ['127.0.0.1', '127.0.0.2', '127.0.0.3']);
    becomes($t, { 1 => 2, 3 => 2 }, 'it is drained');
};

done_testing;
