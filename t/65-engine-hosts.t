#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Which virtual host a request is for, and what TLS has to say to it: the engine chooses as httpd.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Lanes;

# Virtual hosts on both ports: the default, a plain one, one with aliases, one without routes.
sub hosts {
    my ($t, @main) = @_;
    my $up = $t->upstream;
    $up->on_request(sub { return [200, ['X-Target' => $_[0]->target], ''] });
    my $url = $up->url;
    $t->file('htdocs/index.html', 'a file of the host without routes');
    my $lanes = RProxy::Lanes->configure($t, [@main, "RProxyPass / $url/default/"],
        ['second.test', "RProxyPass / $url/second/"],
        ['third.test', 'ServerAlias *.wild.test alias.test', "RProxyPass / $url/third/"],
        ['fourth.test', 'DirectoryIndex index.html'],
        ['fifth.test', 'ServerAlias www.second.test', 'LimitRequestBody 10',
            "RProxyPass / $url/fifth/"]);
    $t->extra_modules('dir');
    return ($lanes, $up);
}

my @HOSTS = ('www.example.test', 'second.test', 'SECOND.test', 'second.test.', 'second.test:1234',
    'third.test', 'a.wild.test', 'a.b.wild.test', 'wild.test', 'alias.test', 'alias.test:80',
    'fourth.test', 'fifth.test', 'www.second.test', 'unknown.test', '127.0.0.1', '[::1]',
    'localhost',
    'second.test ', 'secon.test', 'second.testx', '', 'x..y', '-');

behaviour 'each name leads to the host that httpd chooses', lanes => ['engine'], sub {
    my ($t) = @_;
    my ($lanes, $up) = hosts($t);
    $t->access_format('%{rproxy-lane}e %v %V');
    $t->start;
    my $close = "Connection: close\r\n\r\n";
    for my $name (@HOSTS) {
        my ($pipeline, $engine)
            = $lanes->answers("GET /x HTTP/1.1\r\nHost: $name\r\n$close");
        is($engine, $pipeline, "'$name'");
        ($pipeline, $engine)
            = $lanes->answers("GET http://second.test/x HTTP/1.1\r\nHost: $name\r\n$close");
        is($engine, $pipeline, "'$name' beside an absolute target");
    }
    for my $version ('1.0', '1.1') {
        my ($pipeline, $engine) = $lanes->answers("GET /x HTTP/$version\r\n$close");
        is($engine, $pipeline, "HTTP/$version without Host");
    }
    my @log;
    wait_until('the same hosts in both logs', undef, sub {
        my %count;
        @log = $t->access_log;
        $count{ s/^\S+ //r }++ for @log;
        return !grep { $count{$_} % 2 } keys %count;
    });
    cmp_ok(scalar(grep { /^engine/ } @log), '>', 20, 'the engine had its share');
};

behaviour 'names change from request to request of one connection', lanes => ['engine'], sub {
    my ($t) = @_;
    my ($lanes) = hosts($t);
    $t->start;
    my @names = grep { /^[a-z]+(?:\.[a-z]+)+$/ } @HOSTS;
    my @order = map { @names[map { $_ * 7 % @names } $_ .. $_ + 5] } 0 .. 15;
    my $bytes = join '', map { "GET /x HTTP/1.1\r\nHost: $_\r\n\r\n" } @order;
    my ($pipeline, $engine)
        = $lanes->answers("${bytes}GET /x HTTP/1.1\r\nHost: second.test\r\n"
            . "Connection: close\r\n\r\n");
    is($engine, $pipeline, 'the same answers');
    my $answers = () = $engine =~ m{HTTP/1\.1 [2-5]\d\d }g;
    is($answers, 1 + @order, 'all of them');
};

behaviour 'limits are those of the host', lanes => ['engine'], sub {
    my ($t) = @_;
    my ($lanes, $up) = hosts($t);
    $t->start;
    for my $name ('second.test', 'fifth.test') {
        my ($pipeline, $engine) = $lanes->answers("POST /x HTTP/1.1\r\nHost: $name\r\n"
            . "Connection: close\r\nContent-Length: 20\r\n\r\n" . 'x' x 20);
        is($engine, $pipeline, $name);
        like($engine, $name =~ /fifth/ ? qr{\AHTTP/1\.1 413} : qr{\AHTTP/1\.1 200}, 'status');
    }
};

# [SNI or undef, Host] in all combinations.
sub compare_names {
    my ($t, $lanes) = @_;
    my %seen;
    for my $sni ('www.example.test', 'second.test', 'a.wild.test', 'unknown.test', undef) {
        for my $host ('www.example.test', 'second.test', 'SECOND.TEST', 'second.test:443',
            'b.wild.test', 'a.wild.test', 'unknown.test', 'fifth.test') {
            my %client = (tls => { SSL_verify_mode => 0, SSL_verifycn_scheme => 'none',
                SSL_hostname => $sni // '' });
            my ($pipeline, $engine) = map {
                my $lane = $_;
                eval { $lanes->answer($lane, "GET /x HTTP/1.1\r\nHost: $host\r\n"
                    . "Connection: close\r\n\r\n", client => \%client) } // 'refused'
            } qw(pipeline engine);
            is($engine, $pipeline, ($sni // 'no name') . " in TLS, $host in Host");
            $seen{ $engine =~ m{\AHTTP/1\.1 (\d+)} ? $1 : 'refused' }++;
        }
    }
    return \%seen;
}

behaviour 'the name in TLS and Host', lanes => ['engine-tls'], sub {
    my ($t) = @_;
    my ($lanes) = hosts($t);
    $t->start;
    my $seen = compare_names($t, $lanes);
    cmp_ok($seen->{200} // 0, '>', 5, 'some fit');
};

behaviour 'the name in TLS and Host where hosts differ in TLS', lanes => ['engine-tls'], sub {
    my ($t) = @_;
    my ($lanes) = hosts($t, 'SSLProtocol TLSv1.2');
    $t->start;
    my $seen = compare_names($t, $lanes);
    cmp_ok($seen->{421} // 0, '>', 0, 'some are misdirected');
};

behaviour 'SSLStrictSNIVHostCheck', lanes => ['engine-tls'], sub {
    my ($t) = @_;
    my ($lanes) = hosts($t, 'SSLStrictSNIVHostCheck on');
    $t->start;
    my $seen = compare_names($t, $lanes);
    cmp_ok(($seen->{403} // 0) + ($seen->{refused} // 0), '>', 0, 'some are refused');
};

behaviour 'a second request for another host over TLS', lanes => ['engine-tls'], sub {
    my ($t) = @_;
    my ($lanes) = hosts($t);
    $t->start;
    my $bytes = join '', map { "GET /x HTTP/1.1\r\nHost: $_\r\n\r\n" }
        'www.example.test', 'www.example.test:443', 'second.test', 'www.example.test';
    my ($pipeline, $engine) = $lanes->answers($bytes
        . "GET /x HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n");
    is($engine, $pipeline, 'the same answers');
};

done_testing;
