# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# h2o as a proxy: keep-alive to the backend, 2 threads. Its access log cannot be buffered.
package Bench::Peer::H2O;
use strict;
use warnings;
use Bench::Process;
use Bench::Programs;

sub missing {
    return Bench::Programs::find('h2o') ? undef : 'h2o is not installed';
}

sub version { Bench::Programs::version(Bench::Programs::need('h2o'), '-v') }

sub start {
    my ($class, %args) = @_;
    my $dir = $args{dir};
    my $connections = $args{profile}{connections} + 1000;
    my $user = $> == 0 ? 'user: root' : '';
    my $idle = $args{profile}{exposed} ? 60 : 3600;
    open(my $conf, '>', "$dir/h2o.conf") or die "bench: $dir/h2o.conf: $!\n";
    print $conf <<"EOT";
$user
pid-file: $dir/h2o.pid
error-log: $dir/error.log
access-log: $dir/access.log
num-threads: 2
max-connections: $connections
http1-request-timeout: $idle
http2-idle-timeout: $idle
listen:
  host: 127.0.0.1
  port: $args{port}
listen:
  host: 127.0.0.1
  port: $args{tls}
  ssl:
    certificate-file: $args{cert}
    key-file: $args{key}
proxy.timeout.io: 3600000
proxy.timeout.keepalive: 60000
hosts:
  default:
    paths:
      /:
        proxy.reverse.url: http://127.0.0.1:$args{backend}/
EOT
    close $conf;
    return Bench::Process->start(
        command => [Bench::Programs::need('h2o'), '-m', 'worker', '-c', "$dir/h2o.conf"],
        log => "$dir/log", ports => [@args{qw(port tls)}]);
}

1;
