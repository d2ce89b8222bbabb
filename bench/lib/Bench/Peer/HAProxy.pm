# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# HAProxy. It has no access log here, as it cannot write one to a file by itself; only for HTTP/2 it
# writes one, line by line, to its standard output, which is a file. By default it closes idle
# connections to the backend once a quarter of its descriptors are in use; it may use them all. It
# wants two descriptors for each connection, and starts without them only if told so.
package Bench::Peer::HAProxy;
use strict;
use warnings;
use Bench::Process;
use Bench::Programs;

sub missing {
    return Bench::Programs::find('haproxy') ? undef : 'haproxy is not installed';
}

sub version { Bench::Programs::version(Bench::Programs::need('haproxy'), '-v') }

sub start {
    my ($class, %args) = @_;
    my $dir = $args{dir};
    my $connections = $args{profile}{connections} + 1000;
    my $http2 = $args{profile}{http2};
    my $protocols = $http2 ? 'h2,http/1.1' : 'http/1.1';
    my $log = $http2 ? "log stdout format raw local0\n    option httplog" : '';
    my $limits = $args{profile}{exposed} ? "timeout http-request 20s\n    timeout client 60s"
                                         : 'timeout client 1h';
    open(my $conf, '>', "$dir/haproxy.cfg") or die "bench: $dir/haproxy.cfg: $!\n";
    print $conf <<"EOT";
global
    nbthread 2
    no strict-limits
    maxconn $connections
    tune.pool-low-fd-ratio 90
    tune.pool-high-fd-ratio 95
defaults
    mode http
    $log
    maxconn $connections
    backlog 4096
    http-reuse always
    timeout connect 10s
    $limits
    timeout server 1h
    timeout tunnel 1h
frontend client
    bind 127.0.0.1:$args{port}
    bind 127.0.0.1:$args{tls} ssl crt $args{both} ssl-min-ver TLSv1.3 alpn $protocols
    default_backend backend
backend backend
    server one 127.0.0.1:$args{backend}
EOT
    close $conf;
    return Bench::Process->start(
        command => [Bench::Programs::need('haproxy'), '-db', '-f', "$dir/haproxy.cfg"],
        log => "$dir/log", ports => [@args{qw(port tls)}]);
}

1;
