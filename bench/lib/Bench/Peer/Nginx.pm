# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# nginx as a proxy: keep-alive to the backend, no temporary files, no buffered uploads.
package Bench::Peer::Nginx;
use strict;
use warnings;
use Bench::Process;
use Bench::Programs;

sub missing {
    return Bench::Programs::find('nginx') ? undef : 'nginx is not installed';
}

sub version { Bench::Programs::version(Bench::Programs::need('nginx'), '-v') }

sub start {
    my ($class, %args) = @_;
    my $dir = $args{dir};
    my $user = $> == 0 ? 'user root;' : '';
    # Each connection counts twice, and one of the two workers may get nearly all of them.
    my $connections = $args{profile}{connections} * 2 + 96;
    my $upgrade = $args{profile}{websockets}
        ? 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade;'
        : 'proxy_set_header Connection "";';
    my $protocols = $args{profile}{http2} ? 'ssl http2' : 'ssl';
    my ($idle, $read) = $args{profile}{exposed} ? ('75s', '60s') : ('1h', '1h');
    mkdir "$dir/tmp";
    open(my $conf, '>', "$dir/nginx.conf") or die "bench: $dir/nginx.conf: $!\n";
    print $conf <<"EOT";
daemon off;
$user
pid $dir/nginx.pid;
worker_processes 2;
events { worker_connections $connections; }
http {
    access_log $dir/access.log combined buffer=64k;
    keepalive_timeout $idle;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path $dir/tmp;
    proxy_temp_path $dir/tmp;
    fastcgi_temp_path $dir/tmp;
    uwsgi_temp_path $dir/tmp;
    scgi_temp_path $dir/tmp;
    map \$http_upgrade \$upgrade { default upgrade; "" ""; }
    upstream backend {
        server 127.0.0.1:$args{backend};
        keepalive 64;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:$args{port} backlog=4096;
        listen 127.0.0.1:$args{tls} $protocols backlog=4096;
        ssl_certificate $args{cert};
        ssl_certificate_key $args{key};
        ssl_protocols TLSv1.3;
        location / {
            proxy_pass http://backend;
            proxy_http_version 1.1;
            $upgrade
            proxy_max_temp_file_size 0;
            proxy_request_buffering off;
            proxy_read_timeout $read;
        }
    }
}
EOT
    close $conf;
    return Bench::Process->start(
        command => [Bench::Programs::need('nginx'), '-e', "$dir/error.log", '-p', $dir,
                    '-c', "$dir/nginx.conf"],
        log => "$dir/log", ports => [@args{qw(port tls)}]);
}

1;
