# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The proxies that are compared. Each peer is a module with
#   missing()     undef, or why it cannot take part
#   version()     what is running
#   start(%args)  a private instance in front of the backend: a Bench::Process
# with the arguments
#   dir          a directory of its own
#   port, tls    where to listen, plain and with TLS
#   backend      the port of the backend; undef: the profile says where members are
#   cert, key    PEM files; both: one file with the two
#   profile      a hash: threads (undef: one child with 100 at first; else so many in one child),
#                connections (the most that will be open, or streams of HTTP/2),
#                http2 (true: the TLS port speaks it), websockets (true: tunnels are used),
#                exposed (true: time limits as on the Internet, and our status page on the port
#                status, which is an argument then),
#                idle_seconds (how long a connection may be idle, where 30 is not enough),
#                pool (lines of the section, for pools),
#                pipeline (a path: PATH/parked and PATH/handler are not the engine's),
#                path (what plain httpd has a file for)
package Bench::Peers;
use strict;
use warnings;
use File::Path qw(remove_tree);
use Bench::Peer::H2O;
use Bench::Peer::HAProxy;
use Bench::Peer::Httpd;
use Bench::Peer::Nginx;
use Bench::Process;

# The first one is compared with each of the others.
our @all = qw(engine pipeline mod_proxy nginx haproxy);

# May be asked for, too.
our @more = qw(pool);

# Pools of the mode leasttime.
our @pools = qw(leasttime healthy roundrobin);

# Those that speak HTTP/2.
our @http2 = qw(engine mod_http2 nginx haproxy h2o);

my %peer = (
    (map { $_ => Bench::Peer::Httpd->new($_) } qw(engine pipeline pool mod_proxy mod_http2 httpd)),
    (map { $_ => Bench::Peer::Httpd->new('pool') } @pools),
    nginx   => 'Bench::Peer::Nginx',
    haproxy => 'Bench::Peer::HAProxy',
    h2o     => 'Bench::Peer::H2O',
);

# Those of the wanted peers that can take part, in the given order; says why one cannot.
sub available {
    my @wanted = @_;
    my @found;
    for my $name (@wanted) {
        my $class = $peer{$name} // die "bench: no such peer: $name\n";
        my $why = $class->missing;
        if ($why) {
            print STDERR "bench: without $name: $why\n";
        } else {
            push @found, $name;
        }
    }
    die "bench: no peer is left\n" unless @found;
    return @found;
}

sub version { $peer{$_[0]}->version }

my $instances = 0;

# Starts a peer; returns { name, process, dir, port, tls, status }.
sub start {
    my ($name, $setup, $backend, $profile) = @_;
    my $dir = "$setup->{dir}/$name-" . ++$instances;
    mkdir $dir or die "bench: $dir: $!\n";
    my %port = map { $_ => Bench::Process::free_port() } qw(port tls),
        $profile->{exposed} ? 'status' : ();
    my $process = $peer{$name}->start(%port, dir => $dir, backend => $backend, profile => $profile,
                                      map { $_ => $setup->{$_} } qw(cert key both));
    return { name => $name, process => $process, dir => $dir, %port };
}

# Its logs go with it: they are large.
sub stop {
    my ($peer) = @_;
    $peer->{process}->stop;
    remove_tree($peer->{dir});
}

1;
