# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The two backends all peers stand in front of: nginx with files, and slow_backend.
package Bench::Backend;
use strict;
use warnings;
use Bench::Process;
use Bench::Programs;

use constant ADDRESSES => 10;    # 127.0.0.1 and on: for pools

# nginx serving one file of each size as /SIZE; its own CPU is not measured.
sub files {
    my ($dir, @sizes) = @_;
    my $nginx = Bench::Programs::need('nginx');
    my $port = Bench::Process::free_port();
    my $user = $> == 0 ? 'user root;' : '';
    my $listen = join "\n",
        map { "        listen 127.0.0.$_:$port backlog=4096;" } 1 .. ADDRESSES;
    mkdir "$dir/$_" for qw(files tmp);
    for my $size (@sizes) {
        open(my $out, '>', "$dir/files/$size") or die "bench: $dir/files/$size: $!\n";
        print $out 'x' x $size;
    }
    open(my $conf, '>', "$dir/nginx.conf") or die "bench: $dir/nginx.conf: $!\n";
    print $conf <<"EOT";
daemon off;
$user
pid $dir/nginx.pid;
worker_processes 2;
events { worker_connections 4096; }
http {
    access_log off;
    sendfile on;
    tcp_nodelay on;
    open_file_cache max=64;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path $dir/tmp;
    proxy_temp_path $dir/tmp;
    fastcgi_temp_path $dir/tmp;
    uwsgi_temp_path $dir/tmp;
    scgi_temp_path $dir/tmp;
    server {
$listen
        root $dir/files;
    }
}
EOT
    close $conf;
    my $process = Bench::Process->start(
        command => [$nginx, '-e', "$dir/error.log", '-p', $dir, '-c', "$dir/nginx.conf"],
        log => "$dir/log", ports => [$port]);
    return { process => $process, port => $port };
}

sub slow {
    my ($dir, $bin) = @_;
    my $port = Bench::Process::free_port();
    my $process = Bench::Process->start(command => ["$bin/slow_backend", $port],
                                        log => "$dir/slow_backend.log", ports => [$port]);
    return { process => $process, port => $port };
}

1;
