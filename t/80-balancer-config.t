#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What the configuration of pools may say, and what it is told when it says something else.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Directives;

my @event = (lanes => ['event']);
my $A = 'http://10.0.0.1:8080';
my $B = 'http://10.0.0.2:8080';

sub accepted { my ($t, @lines) = @_; return accepted_in($t, 'server_config', @lines) }

# The message names the line that it matches, too, unless another one is given.
sub refused {
    my ($t, $lines, $message, $at) = @_;
    return refused_in($t, 'server_config', $lines, $message, $at // $message);
}

sub in_pool { return ['<RProxyBalancer app>', @_, '</RProxyBalancer>'] }
sub with_members { return in_pool("RProxyMember $A", "RProxyMember $B", @_) }

behaviour 'pools are taken', @event, sub {
    my ($t) = @_;
    accepted($t, @{ in_pool("RProxyMember $A") });
    accepted($t, '<RProxyBalancer App_1.x-2>', "RProxyMember $A", '</RProxyBalancer>',
        'RProxyPass / balancer://app_1.X-2/base');
    accepted($t, @{ in_pool("RProxyMember $A weight=5 max=10 slowstart=30s state=up",
        "RProxyMember https://[2001:db8::1]:8443/base/ loadfactor=3 backup",
        'RProxyMember unix:/run/app.sock|http://localhost/ state=drain slowstart=0',
        "RProxyMember $B BACKUP state=Down") });
    accepted($t, 'RProxyZone eu-1', @{ in_pool("RProxyMember $A zone=eu-1", "RProxyMember $B") });
    accepted($t, @{ with_members("RProxyMethod $_") })
        for qw(roundrobin LeastConn leasttime random2 bytraffic first), 'hash ip', 'hash uri maglev',
        'hash path bounded=1.25', 'hash header:X-Id', 'hash cookie:sid bounded=2 maglev',
        'hash arg:id';
    accepted($t, @{ with_members("RProxyOutlier $_") })
        for 'off', 'errors=3', 'errors=10 window=1min eject=500ms max-eject=10s max-percent=100';
    accepted($t, @{ with_members("RProxyQueue $_") }) for qw(off max=4096), 'timeout=1ms max=1';
    accepted($t, @{ with_members("RProxyRetryBudget $_") }) for qw(OFF min=0), 'percent=100 min=5';
    accepted($t, @{ in_pool('<IfModule rproxy_module>', "RProxyMember $A", '</IfModule>') });
};

behaviour 'a virtual host sees its own pools and those of the main server', @event, sub {
    my ($t) = @_;
    $t->server_config(@{ in_pool("RProxyMember $A") });
    $t->config('<RProxyBalancer own>', "RProxyMember $B", '</RProxyBalancer>',
        'RProxyPass / balancer://app/', 'RProxyPass /own balancer://own/');
    my ($code, $output) = $t->httpd_test;
    is($code, 0, 'both are there') || diag($output);
    $t->server_config('RProxyPass /x balancer://own/');
    ($code, $output) = $t->httpd_test;
    isnt($code, 0, 'the main server does not see those of a virtual host');
    like($output, qr/there is no pool of this name/, 'and says so');
};

behaviour 'names of pools', @event, sub {
    my ($t) = @_;
    my $section = sub { ["<RProxyBalancer$_[0]>", "RProxyMember $A", '</RProxyBalancer>'] };
    refused($t, $section->(''), qr/needs one name/, qr/<RProxyBalancer/);
    refused($t, $section->(' a b'), qr/needs one name/, qr/<RProxyBalancer/);
    refused($t, $section->(' a/b'), qr/a name has 1 to 64 letters/, qr/<RProxyBalancer/);
    refused($t, $section->(' ' . 'a' x 65), qr/a name has 1 to 64/, qr/<RProxyBalancer/);
    refused($t, [@{ $section->(' app') }, @{ $section->(' APP') }],
        qr/<RProxyBalancer app> stands twice: here \(\S+:\d+\) and at \S+:\d+; give/, qr/APP/);
    $t->clear_config;
    $t->server_config(@{ $section->(' app') });
    $t->config(@{ $section->(' app') });
    my ($code, $output) = $t->httpd_test;
    isnt($code, 0, 'nor in a virtual host');
    like($output, qr/stands twice/);
};

behaviour 'where pools may stand', @event, sub {
    my ($t) = @_;
    refused($t, ['<Location /x>', @{ in_pool("RProxyMember $A") }, '</Location>'],
        qr/holds for a whole server; move it out/, qr/<RProxyBalancer/);
    refused($t, ["RProxyMember $A"], qr/describes a pool; move it between <RProxyBalancer NAME>/,
        qr/RProxyMember/);
    refused($t, ['RProxyMethod first'], qr/describes a pool/, qr/RProxyMethod/);
    refused($t, ['RProxyOutlier off'], qr/describes a pool/, qr/RProxyOutlier/);
    refused($t, with_members('RProxyUpgrade off'),
        qr/RProxyUpgrade \(\S+:\d+\) is not for <RProxyBalancer>, .*move it out/,
        qr/<RProxyBalancer/);
    refused($t, with_members('<Location /x>', 'RProxyMethod first', '</Location>'),
        qr/<Location> \(\S+:\d+\) is not for <RProxyBalancer>/, qr/<RProxyBalancer/);
};

behaviour 'members', @event, sub {
    my ($t) = @_;
    my %messages = (
        '' => qr/needs the URL of a server/,
        'ftp://a' => qr/unknown scheme; begin it with/,
        'balancer://other' => qr/a pool has no other pool as a member/,
        "$A weight=0" => qr/would get no request; write state=drain/,
        "$A weight=1.5" => qr/multiply all of the pool/,
        "$A weight=1001" => qr/whole number from 1 to 1000/,
        "$A weight=1 weight=2" => qr/weight= stands twice/,
        "$A weight=1 loadfactor=2" => qr/two names of one thing/,
        "$A max=-1" => qr/whole number from 0/,
        "$A slowstart=5y" => qr/write a time/,
        "$A state=off" => qr/state=up, state=drain or state=down/,
        "$A zone=a/b" => qr/a zone has 1 to 64/,
        "$A colour=red" => qr/unknown key .*; known are weight=, loadfactor=, max=, /,
        "$A route" => qr/neither backup nor key=value/,
        "$A backup backup" => qr/backup stands twice/,
        "$A max=" => qr/max= needs a value/,
    );
    refused($t, in_pool("RProxyMember $_"), $messages{$_}, qr/^RProxyMember \Q$_\E$/)
        for sort keys %messages;
    refused($t, in_pool(), qr/has no members; add at least one/, qr/<RProxyBalancer/);
    refused($t, in_pool("RProxyMember $_->[0]", "RProxyMember $_->[1]"),
        qr/stands twice in the pool "app"/, qr/^RProxyMember \Q$_->[1]\E$/)
        for [$A, "$A/"], ['http://Ab/', 'http://aB:80'], ['https://a/x', 'https://a:443/x/'];
    refused($t, in_pool("RProxyMember $A zone=eu"),
        qr/has zone=eu, but .*; write RProxyZone, or remove zone=/, qr/<RProxyBalancer/);
};

behaviour 'methods, zones, outliers', @event, sub {
    my ($t) = @_;
    my %methods = (
        '' => qr/needs a name/,
        'best' => qr/"best" is unknown; there are bytraffic, first, hash, leastconn, leasttime, /,
        'first 2' => qr/takes no arguments; remove "2"/,
        'hash' => qr/it needs a key: ip, uri, /,
        'hash host' => qr/"host" is no key; write ip, uri, /,
        'hash cookie:' => qr/is no key/,
        'hash header' => qr/is no key/,
        'hash ip bounded=1' => qr/1\.01 to 100/,
        'hash ip bounded=x' => qr/1\.01 to 100/,
        'hash ip maglev maglev' => qr/maglev stands twice/,
        'hash ip ketama' => qr/"ketama" is unknown; behind the key/,
    );
    refused($t, with_members("RProxyMethod $_"), $methods{$_}, qr/^RProxyMethod \Q$_\E$/)
        for sort keys %methods;
    refused($t, with_members('RProxyMethod first', 'RProxyMethod random2'),
        qr/RProxyMethod stands twice in the pool/, qr/random2/);
    my %outliers = (
        '' => qr/needs off or at least one key/,
        'off errors=1' => qr/off stands alone/,
        'errors=0' => qr/whole number from 1 to 10000/,
        'window=0' => qr/a time above 0/,
        'max-percent=101' => qr/whole number from 1 to 100/,
        'eject=2min' => qr/eject= is longer than max-eject=/,
        'fails=3' => qr/unknown key/,
    );
    refused($t, with_members("RProxyOutlier $_"), $outliers{$_}, qr/^RProxyOutlier \Q$_\E$/)
        for sort keys %outliers;
    refused($t, with_members('RProxyOutlier off', 'RProxyOutlier errors=3'),
        qr/RProxyOutlier stands twice/, qr/errors=3/);
    my %queues = (
        '' => qr/needs off or keys/,
        'off max=3' => qr/off stands alone/,
        'max=0' => qr/whole number from 1 to 4096/,
        'timeout=0' => qr/a time above 0/,
        'max=1 max=2' => qr/max= stands twice/,
        'size=3' => qr/unknown key/,
    );
    refused($t, with_members("RProxyQueue $_"), $queues{$_}, qr/^RProxyQueue \Q$_\E$/)
        for sort keys %queues;
    refused($t, with_members('RProxyQueue off', 'RProxyQueue max=3'), qr/RProxyQueue stands twice/,
        qr/max=3/);
    my %budgets = (
        '' => qr/needs off or keys/,
        'percent=1 off' => qr/off stands alone/,
        'percent=0' => qr/whole number from 1 to 100/,
        'min=-1' => qr/whole number from 0 to/,
    );
    refused($t, with_members("RProxyRetryBudget $_"), $budgets{$_},
        qr/^RProxyRetryBudget \Q$_\E$/) for sort keys %budgets;
    refused($t, ['RProxyQueue max=3'], qr/RProxyQueue describes a pool; move it/, qr/RProxyQueue/);
    refused($t, ['RProxyZone a', @{ in_pool("RProxyMember $A") }],
        qr/has no effect, for no member has zone=; remove it/, qr/RProxyZone/);
    refused($t, ['RProxyZone a', 'RProxyZone b'], qr/stands twice: here/, qr/RProxyZone b/);
    refused($t, ['RProxyZone a/b'], qr/a zone has 1 to 64/, qr/RProxyZone/);
    refused($t, ['<Location /x>', 'RProxyZone a', '</Location>'],
        qr/move it out of all sections/, qr/RProxyZone/);
};

behaviour 'members from elsewhere', @event, sub {
    my ($t) = @_;
    accepted($t, @{ in_pool('RProxyMembersFile conf/members.json interval=1s',
            'RProxyDiscover file /other.json') });
    accepted($t, @{ in_pool('RProxyMember http://app.test', 'RProxyMember http+srv://_a._tcp.test/x',
            "RProxyMember $A", "RProxyResolve $_") })
        for 'ttl=auto', 'ttl=30s ipv4', 'ttl=auto min=5s max=1min ipv6 resolvers=10.0.0.53,10.0.0.54';
    accepted($t, 'RProxyStateFile run/members.state', @{ in_pool("RProxyMember $A") });
    my %messages = (
        'RProxyMembersFile' => qr/it needs the path of a file/,
        'RProxyMembersFile a every=1s' => qr/unknown key/,
        'RProxyMembersFile a interval=0' => qr/a time above 0/,
        'RProxyDiscover' => qr/needs the name of a provider/,
        'RProxyDiscover consul' => qr/"consul" is unknown; load the module/,
        'RProxyResolve' => qr/needs ttl=/,
        'RProxyResolve ttl=soon' => qr/write a time/,
        'RProxyResolve ttl=auto min=1h max=1s' => qr/min= is longer than max=/,
        'RProxyResolve ttl=5s min=1s' => qr/are for ttl=auto/,
        'RProxyMember http+srv://_a._tcp.test:80' => qr/ports come from DNS; remove/,
        'RProxyMember http://a#10.0.0.1' => qr/has no fragment/,
    );
    refused($t, in_pool('RProxyMember http://app.test', $_), $messages{$_},
        /srv/ ? qr/<RProxyBalancer/ : qr/^\Q$_\E$/) for sort keys %messages;
    refused($t, with_members('RProxyResolve ttl=auto'), qr/no member has a name/,
        qr/<RProxyBalancer/);
    refused($t, with_members('RProxyDiscover file b', 'RProxyMembersFile b'), qr/twice; keep one/,
        qr/RProxyMembersFile b/);
    refused($t, with_members('RProxyStateFile a'), qr/is not for <RProxyBalancer>/,
        qr/<RProxyBalancer/);
};

behaviour 'pools need the core', @event, sub {
    my ($t) = @_;
    $t->without_modules('rproxy');
    $t->{config}{server} = in_pool("RProxyMember $A");
    my ($code, $output) = $t->httpd_test;
    isnt($code, 0, 'exit code');
    like($output, qr/RProxyMember needs mod_rproxy; load it: LoadModule rproxy_module/);
};

done_testing;
